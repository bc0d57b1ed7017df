// Command sdkuser is a program of somebody else: script/sdk-user builds it in a module of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/smolvm/smolvm"
	"github.com/smolvm/smolvm/errdefs"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err, errdefs.RemedyOf(err))
		os.Exit(1)
	}
}

func want(ok bool, format string, args ...any) {
	if !ok {
		must(fmt.Errorf(format, args...))
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	vm, err := smolvm.New(ctx, smolvm.Config{ID: os.Args[1], MemoryMiB: 512, BootTimeoutMs: 280000}, smolvm.Temporary())
	must(err)
	res, err := vm.Run(ctx, "true") // starts it
	must(err)
	want(res.OK() && res.Duration > 0, "true: %+v", res)
	state, err := vm.Status(ctx)
	must(err)
	want(state == "running", "state %s", state)
	res, err = vm.Shell(ctx, "printf 'a\\377b'; echo oops >&2; exit 7")
	must(err)
	want(res.ExitCode == 7 && string(res.Stdout) == "a\377b" && string(res.Stderr) == "oops\n", "%+v", res)

	cmd := vm.Command(ctx, "sh", "-c", "cat; echo $GREETING; echo e >&2; exit 3")
	cmd.Stdin, cmd.Env = strings.NewReader(strings.Repeat("x", 3<<20)+"\n"), map[string]string{"GREETING": "hello"}
	out, err := cmd.Output()
	var failed *smolvm.ExitError
	want(errors.As(err, &failed) && failed.ExitCode == 3 && string(failed.Stderr) == "e\n", "%v", err)
	want(len(out) == 3<<20+1+6 && strings.HasSuffix(string(out), "hello\n"), "%d bytes", len(out))
	both, err := vm.Command(ctx, "sh", "-c", "echo a; echo b >&2").CombinedOutput()
	must(err)
	want(len(both) == 4, "%q", both)
	_, err = vm.Command(ctx, "no-such-program").Output()
	want(errors.As(err, &failed) && failed.ExitCode == 127, "%v", err)
	sleep := vm.Command(ctx, "sleep", "1000")
	must(sleep.Start())
	must(sleep.Signal("SIGTERM", false))
	want(errors.As(sleep.Wait(), &failed) && failed.Signal == "SIGTERM", "%v", failed)
	short, stop := context.WithCancel(ctx)
	left := vm.Command(short, "sh", "-c", "sleep 987654 & sleep 987654")
	must(left.Start())
	stop()
	want(left.Wait() != nil, "a command whose context ended did not fail")
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		res, err := vm.Shell(ctx, "pgrep -c -f 'sleep 98765[4]'")
		must(err)
		if strings.TrimSpace(string(res.Stdout)) == "0" {
			break
		}
		want(time.Since(begun) < 20*time.Second, "%s of it are left", res.Stdout)
	}

	must(vm.WriteFile(ctx, "/root/f", []byte("text"), 0o600))
	b, err := vm.ReadFile(ctx, "/root/f")
	must(err)
	want(string(b) == "text", "%q", b)
	here := filepath.Join(os.TempDir(), "f")
	must(vm.Download(ctx, "/root/f", here))
	must(vm.Upload(ctx, here, "/root/g"))
	must(os.Remove(here))
	_, err = vm.ReadFile(ctx, "/root/none")
	var e *errdefs.Error
	want(errors.As(err, &e) && e.Class == errdefs.NotFound, "%v", err)

	must(vm.Command(ctx, "sh", "-c", "python3 -m http.server 8000 >/dev/null 2>&1 &").Run())
	must(vm.WaitForPort(ctx, 8000))
	port, err := vm.ExposeLocal(ctx, 8000, 0)
	must(err)
	want(port > 0, "port %d", port)
	_, err = smolvm.FromID(ctx, "no-such-vm")
	want(errors.As(err, &e) && e.Class == errdefs.NotFound && e.Remedy != "", "%v", err)
	again, err := smolvm.FromID(ctx, vm.ID())
	must(err)
	res, err = again.Run(ctx, "cat", "/root/g")
	must(err)
	want(string(res.Stdout) == "text", "%+v", res)
	must(again.Close())
	fmt.Println("waiting")
	time.Sleep(time.Hour)
}
