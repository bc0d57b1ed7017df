package smolvm_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/smolvm/smolvm"
)

func ExampleNew() {
	ctx := context.Background() //nolint:forbidigo // a program's own
	vm, err := smolvm.New(ctx, smolvm.Config{MemoryMiB: 512}, smolvm.Temporary())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer func() { _ = vm.Close() }()
	res, err := vm.Run(ctx, "uname", "-r")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	_, _ = os.Stdout.Write(res.Stdout)
}

func ExampleVM_Command() {
	ctx := context.Background() //nolint:forbidigo // a program's own
	vm, err := smolvm.FromID(ctx, "web")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer func() { _ = vm.Close() }()
	cmd := vm.Command(ctx, "tr", "a-z", "A-Z")
	cmd.Stdin, cmd.Stdout = strings.NewReader("hello\n"), os.Stdout
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
