// Package smolvm runs commands in disposable microVMs: each has a kernel of its own, reaches only what it may, and is gone
// afterwards.
//
//	vm, err := smolvm.New(ctx, smolvm.Config{MemoryMiB: 512}, smolvm.Temporary())
//	if err != nil {
//		return err
//	}
//	defer vm.Close()
//	res, err := vm.Run(ctx, "uname", "-r")
//
// It is a client of the HTTP API. Unless SMOLVM_HOST names a server, it starts a private one, a child that ends with us: the
// program smolvm, which is found by SMOLVM_BIN, beside our own executable, or in PATH. Failures are *errdefs.Error: their class
// tells what kind of failure it is, and their remedy what helps.
//
// Layer: front, the Go SDK. It may import api and errdefs, and pulls in nothing of what runs VMs.
package smolvm
