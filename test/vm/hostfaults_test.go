package vm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// with runs the program with other environment variables, the last of a name counting.
func (c cli) with(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.command(ctx, nil, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	t.Logf("smolvm %q with %q: %v", args, env, cmd.ProcessState)
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// TestVMWrongInput: what cannot be is refused at once, with exit code 2 or 125, and nothing is made.
func TestVMWrongInput(t *testing.T) {
	c := program(t)
	before := len(c.list(t, "-a"))
	long := strings.Repeat("x", 64)
	for _, args := range [][]string{
		{"create", "--name", ""},
		{"create", "--name", "../x"},
		{"create", "--name", "-x"},
		{"create", "--name", long},
		{"create", "--name", "X"},
		{"create", "--memory", "1"},
		{"create", "--memory", "99999999999"},
		{"create", "--memory", "-1"},
		{"create", "--memory", "1e9G"},
		{"create", "--cpus", "0"},
		{"create", "--cpus", "1000"},
		{"create", "--cpus", "x"},
		{"create", "--disk", "1"},
		{"create", "--disk", "-5"},
		{"create", "--image", "../x"},
		{"create", "--env-file", "/no/such/file"},
		{"create", "-e", "=x"},
		{"run", "--memory", "1", "--", "true"},
		{"run", "--env-file", "/no/such/file", "--", "true"},
		{"run", "--image", "no-such", "--", "true"},
		{"exec", "t-nobody", "--", "true"},
		{"start", "t-nobody"},
		{"stop", "t-nobody"},
		{"rm", "t-nobody"},
		{"inspect", "../t"},
		{"cp", "/no/such", "t-nobody:/x"},
		{"cp", "t-nobody:/x", "/tmp"},
		{"logs", "t-nobody"},
		{"pause", "t-nobody"},
		{"no-such-command"},
	} {
		r := c.run(t, args...)
		if r.code == 0 || r.stdout != "" || !strings.HasPrefix(r.stderr, "smolvm: ") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, r.code, r.stdout, r.stderr)
		}
		if strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, "goroutine") {
			t.Errorf("%q: %s", args, r.stderr)
		}
	}
	if after := len(c.list(t, "-a")); after != before {
		t.Errorf("there were %d VMs, now there are %d", before, after)
	}
}

// TestVMLongHostFaults: what is wrong on the host is said, with what to do, and makes nothing worse.
func TestVMLongHostFaults(t *testing.T) {
	c := program(t)
	id := c.name(t, "host")
	c.ok(t, "create", "--name", id, "--memory", "256")
	dir := c.inspect(t, id).Dir
	t.Run("broken records", func(t *testing.T) {
		for _, file := range []string{"state.json", "config.json"} {
			was, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"", "{", "null", "\x00\x00", `{"schema": 1, "state": "dancing"}`} {
				write(t, filepath.Join(dir, file), []byte(text), 0o600)
				if s := c.list(t, "-a")[id]; s.State != api.StateBroken || !strings.Contains(s.Reason, "smolvm rm -f "+id) {
					t.Errorf("%s %q: listed as %s: %s", file, text, s.State, s.Reason)
				}
				r := c.run(t, "start", id)
				r.want(t, 1)
				r.says(t, "smolvm rm -f "+id)
			}
			write(t, filepath.Join(dir, file), was, 0o600)
		}
	})
	t.Run("a home that is no home", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		write(t, file, nil, 0o600)
		for _, home := range []string{file, file + "/sub"} {
			if r := c.with(t, []string{"SMOLVM_HOME=" + home}, "create", "--name", "x"); r.code == 0 || !strings.HasPrefix(r.stderr, "smolvm: ") {
				t.Errorf("%s: exit code %d, %s", home, r.code, r.stderr)
			}
		}
	})
	t.Run("a console and a lock that are something else", func(t *testing.T) {
		if err := os.MkdirAll(filepath.Join(dir, "console.log", "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		r := c.run(t, "start", id)
		r.want(t, 1)
		r.says(t, "console")
		if s := c.inspect(t, id); s.State != api.StateError {
			t.Errorf("it is %s", s.State)
		}
		_ = c.run(t, "logs", "--console", id) // whatever it says, it ends
		if err := os.RemoveAll(filepath.Join(dir, "console.log")); err != nil {
			t.Fatal(err)
		}
		lock := filepath.Join(filepath.Dir(filepath.Dir(dir)), "locks", "vm-"+id)
		write(t, lock, []byte("what is in a lock does not matter"), 0o600)
		c.ok(t, "start", id)
		if err := os.Truncate(lock, 0); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a damaged image", func(t *testing.T) { damagedImage(t, c) })
	t.Run("a home that is shut", func(t *testing.T) { shutHome(t, c) })
	t.Run("no monitor", func(t *testing.T) { noMonitor(t, c, c.engine(t, c.inspect(t, id).Engine)) })
	t.Run("the host was restarted", func(t *testing.T) { restartedHost(t, c, id) })
	t.Run("rm during exec", func(t *testing.T) {
		b := c.background(t, "exec", id, "--", "sh", "-c", "echo up; sleep 600")
		if got := b.line(t); got != "up" {
			t.Fatalf("it printed %q", got)
		}
		c.ok(t, "rm", "-f", id)
		<-b.ended
		if code := b.cmd.ProcessState.ExitCode(); code != 125 {
			t.Errorf("exec ended with %d", code)
		}
		c.gone(t, id)
		nobody(t, id)
	})
}

// damagedImage: what is not what was written is not booted.
func damagedImage(t *testing.T, c cli) {
	var images []api.Image
	decode(t, c.ok(t, "image", "ls", "--json"), &images)
	i := slices.IndexFunc(images, func(i api.Image) bool { return i.Name == api.DefaultImage })
	if i < 0 {
		t.Fatalf("no default image among %v", images)
	}
	// A home of its own: others boot from the real one.
	cache, home := filepath.Dir(filepath.Dir(filepath.Dir(images[i].Path))), filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"images", "kernels"} {
		cmd := exec.CommandContext(t.Context(), "cp", "-a", "--reflink=auto", filepath.Join(cache, part), home) //nolint:gosec // ours
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	env := []string{"SMOLVM_HOME=" + home}
	r := c.with(t, env, "create", "--name", "damaged", "--memory", "256")
	r.want(t, 0)
	dir := filepath.Join(home, "images", strings.TrimPrefix(images[i].Digest, "sha256:"))
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what, file string
		damage     func(name string) error
	}{
		{"cut", "rootfs.ext4", func(name string) error { return os.Truncate(name, images[i].SizeBytes/2) }},
		{"another byte", "rootfs.ext4", func(name string) error {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			b := []byte{0}
			if _, err := f.ReadAt(b, images[i].SizeBytes/3); err != nil {
				return err
			}
			b[0] ^= 0xff
			_, err = f.WriteAt(b, images[i].SizeBytes/3)
			return err
		}},
		{"record", "manifest.json", func(name string) error { return os.WriteFile(name, []byte("{"), 0o600) }},
		{"gone", "rootfs.ext4", os.Remove},
	} {
		name := filepath.Join(dir, tt.file)
		cmd := exec.CommandContext(t.Context(), "cp", "-a", "--reflink=auto", name, name+".good") //nolint:gosec // ours
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := errors.Join(os.Chmod(name, 0o600), tt.damage(name)); err != nil {
			t.Fatal(err)
		}
		r := c.with(t, env, "start", "damaged")
		if r.code != 1 || !strings.Contains(r.stderr, images[i].Digest) || !strings.Contains(r.stderr, "try: smolvm image") {
			t.Errorf("%s: exit code %d, %s", tt.what, r.code, r.stderr)
		}
		if err := os.Rename(name+".good", name); err != nil {
			t.Fatal(err)
		}
	}
	r = c.with(t, env, "rm", "damaged")
	r.want(t, 0)
}

// noMonitor: without its engine's program nothing is made, and it is told what to install.
func noMonitor(t *testing.T, c cli, engine api.Engine) {
	says := map[string][2]string{
		"qemu":        {"QEMU is not installed", "try: apt-get install qemu-system-x86"},
		"firecracker": {"Firecracker is not installed", "try: smolvm engine install firecracker"},
	}[engine.Name]
	before := len(c.list(t, "-a"))
	cmd := exec.CommandContext(t.Context(), "unshare", "-Urm", "sh", "-c", `mount --bind /dev/null "$1" && shift && exec "$@"`, "sh", engine.Path, c.bin, "run", "--engine", engine.Name, "--", "true") //nolint:gosec // ours
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 125 || says[0] == "" || !strings.Contains(string(out), says[0]) || !strings.Contains(string(out), says[1]) {
		t.Errorf("exit code %d, %s", code, out)
	}
	if after := len(c.list(t, "-a")); after != before {
		t.Errorf("%d VMs before, %d after", before, after)
	}
}

// restartedHost: a record of another boot is that of a VM that is stopped, whatever has its process ids now, and it starts.
func restartedHost(t *testing.T, c cli, id string) {
	box := c.inspect(t, id)
	kill(t, box.SupervisorPID)
	if box = c.inspect(t, id); box.State != api.StateError {
		t.Fatalf("it is %s", box.State)
	}
	file := filepath.Join(box.Dir, "state.json")
	var state map[string]any
	b, err := os.ReadFile(file) //nolint:gosec // ours
	if err != nil {
		t.Fatal(err)
	}
	decode(t, string(b), &state)
	state["boot_id"], state["state"], state["reason"] = "00000000-0000-4000-8000-000000000000", api.StateRunning, ""
	state["supervisor"] = map[string]any{"pid": os.Getpid(), "start_ticks": 1} // of somebody else now
	if b, err = json.Marshal(state); err != nil {
		t.Fatal(err)
	}
	write(t, file, b, 0o600)
	if box = c.inspect(t, id); box.State != api.StateStopped || box.Reason != "host restarted" {
		t.Errorf("it is %s: %s", box.State, box.Reason)
	}
	c.ok(t, "start", id)
	c.ok(t, "exec", id, "--", "true")
}

// shutHome: what cannot be written or read is said, with what to do.
func shutHome(t *testing.T, c cli) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	home := filepath.Join(t.TempDir(), "home")
	env := []string{"SMOLVM_HOME=" + home}
	for _, part := range []string{"", "images", "locks"} {
		dir := filepath.Join(home, part)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []os.FileMode{0o500, 0} {
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			calls := [][]string{{"create", "--name", "x"}, {"image", "build"}}
			if part == "locks" {
				calls = calls[:1] // those are for VMs
			}
			for _, args := range calls {
				if r := c.with(t, env, args...); r.code == 0 || !strings.Contains(r.stderr, "permission denied") || !strings.Contains(r.stderr, "try: ") {
					t.Errorf("%q of mode %o, %v: exit code %d, %s", part, mode, args, r.code, r.stderr)
				}
			}
		}
		if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder
			t.Fatal(err)
		}
	}
}

// TestVMLongAtOnce: many at the same thing.
func TestVMLongAtOnce(t *testing.T) {
	c := program(t)
	id := c.name(t, "once")
	codes := at(10, func(int) result { return c.run(t, "create", "--name", id, "--memory", "256") })
	won := 0
	for _, r := range codes {
		if r.code == 0 {
			won++
		} else if r.code != 1 || !strings.Contains(r.stderr, "already a VM") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	}
	if won != 1 {
		t.Errorf("%d creates of one name won", won)
	}
	won = 0
	for _, r := range at(10, func(int) result { return c.run(t, "start", id) }) {
		if r.code == 0 {
			won++
		} else if r.code != 1 || !strings.Contains(r.stderr, "smolvm inspect "+id) {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	}
	if won != 1 {
		t.Errorf("%d starts won", won)
	}
	c.exec(t, id, "true").want(t, 0)
	c.ok(t, "stop", id)

	// A stop reaches a VM that is only starting.
	b := c.background(t, "start", id)
	eventually(t, time.Minute, "starting", func() bool { return c.inspect(t, id).State == api.StateStarting })
	c.ok(t, "stop", id)
	<-b.ended
	if s := c.inspect(t, id); s.State != api.StateStopped || b.cmd.ProcessState.ExitCode() == 0 {
		t.Errorf("it is %s: %s; start ended with %d", s.State, s.Reason, b.cmd.ProcessState.ExitCode())
	}
	nobody(t, id)
}

// at does something n times at once.
func at(n int, do func(i int) result) []result {
	out := make([]result, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { out[i] = do(i) })
	}
	all.Wait()
	return out
}

// TestVMRootLongFullHome: a home on a small file system that gets full, and on a read-only one, in a mount namespace that ends with
// the test.
func TestVMRootLongFullHome(t *testing.T) {
	c := program(t)
	if os.Geteuid() != 0 {
		t.Skip("mounts a small file system")
	}
	home := os.Getenv("SMOLVM_HOME")
	if home == "" {
		t.Skip("SMOLVM_HOME names no home to take image and kernel from")
	}
	small := t.TempDir()
	script := `set -u
		mount -t tmpfs -o size=2m,mode=700 none "$2"
		for part in images kernels; do mkdir "$2/$part"; mount --bind "$3/$part" "$2/$part"; done
		export SMOLVM_HOME=$2
		step() { echo "== $1"; shift; "$@" 2>&1; echo "code $?"; }
		state() { "$smolvm" inspect a | grep -E '"(state|reason)"'; }
		smolvm=$1
		step create "$smolvm" create --name a --memory 256 --engine "$5"
		head -c 4M /dev/zero >"$2/fill" 2>/dev/null
		step no-room "$smolvm" create --name b
		step no-start "$smolvm" start a
		rm "$2/fill"
		mount --bind /dev/null "$4"
		step no-monitor "$smolvm" start a
		umount "$4"
		step start "$smolvm" start a
		head -c 4M /dev/zero >"$2/fill" 2>/dev/null
		step write "$smolvm" exec a -- python3 -c 'import os
f = open("/root/x", "wb"); f.write(os.urandom(3 << 20)); f.flush(); os.fsync(f.fileno())'
		step alive "$smolvm" exec a -- echo answers
		step stop "$smolvm" stop a
		step told state
		rm "$2/fill"
		step again "$smolvm" start a
		step remove "$smolvm" rm -f a
		step left ls -A "$2/vms" "$2/trash"
		mount -o remount,ro "$2"
		step ls "$smolvm" ls -a
		step read-only "$smolvm" create --name c`
	engine := c.engine(t, cmp.Or(os.Getenv("SMOLVM_ENGINE"), "qemu"))
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script, "sh", c.bin, small, home, engine.Path, engine.Name)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]string{}
	for part := range strings.SplitSeq(string(out), "== ") {
		name, said, _ := strings.Cut(part, "\n")
		steps[name] = said
	}
	for name, want := range map[string][]string{
		"create": {"code 0"}, "no-room": {"no space left", "try: ", "code 1"}, "no-start": {"no space left", "try: ", "code 1"}, "start": {"code 0"}, "no-monitor": {"try: ", "code 1"},
		"write": {"code 1"}, "alive": {"answers", "code 0"}, "told": {"that cannot be written down"}, "again": {"code 0"}, "remove": {"code 0"},
		"ls": {"code 0"}, "read-only": {"read-only file system", "smolvm doctor", "code 1"},
	} {
		for _, w := range want {
			if !strings.Contains(steps[name], w) {
				t.Errorf("%s does not say %q: %s", name, w, steps[name])
			}
		}
	}
	if strings.Contains(steps["left"], "a\n") || strings.Contains(steps["left"], ".new-") {
		t.Errorf("left: %s", steps["left"])
	}
}
