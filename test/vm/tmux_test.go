package vm

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pane is a terminal that tmux plays, with a shell of ours in it.
type pane struct {
	socket string
	t      *testing.T
}

// tmux opens a terminal of 100 columns and 30 rows.
func tmux(t *testing.T, c cli) *pane {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("tmux is not installed")
	}
	p := &pane{socket: t.TempDir() + "/tmux", t: t}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience) //nolint:usetesting // the test's has ended by then
		defer cancel()
		_ = exec.CommandContext(ctx, "tmux", "-S", p.socket, "kill-server").Run()
	})
	p.do("new-session", "-d", "-x", "100", "-y", "30", "env", "PS1=host> ", "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(),
		"SMOLVM_HOME="+os.Getenv("SMOLVM_HOME"), "bash", "--norc", "--noprofile")
	p.shows("host>")
	p.types("smolvm() { " + c.bin + ` "$@"; }; clear; stty -g >$HOME/before; echo 'read''y'`)
	p.shows("ready")
	return p
}

func (p *pane) command(args ...string) *exec.Cmd {
	return exec.CommandContext(p.t.Context(), "tmux", append([]string{"-f", "/dev/null", "-S", p.socket}, args...)...)
}

func (p *pane) do(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

// types types a line.
func (p *pane) types(line string) {
	p.t.Helper()
	p.do("send-keys", "-l", line)
	p.do("send-keys", "Enter")
}

// keys presses keys by their tmux names.
func (p *pane) keys(names ...string) {
	p.t.Helper()
	p.do(append([]string{"send-keys"}, names...)...)
}

// shows waits until the screen has a text.
func (p *pane) shows(want string) {
	p.t.Helper()
	screen := ""
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if screen = p.do("capture-pane", "-p", "-J"); strings.Contains(screen, want) {
			return
		}
	}
	p.t.Fatalf("no %q on the screen:\n%s", want, screen)
}

// sleeps runs a sleep, and returns when it does.
func (p *pane) sleeps(seconds string) {
	p.t.Helper()
	p.types("clear; echo be''gun " + seconds + "; sleep " + seconds)
	p.shows("begun " + seconds)
	time.Sleep(time.Second) // from echo to sleep
}

// same checks that the terminal's settings are what they were at the beginning.
func (p *pane) same() {
	p.t.Helper()
	p.types(`clear; [ "$(stty -g)" = "$(cat $HOME/before)" ] && echo un''changed || echo chan''ged`)
	p.shows("unchanged")
	p.types("clear")
}

// TestVMCoreShell: a person at a terminal: prompt, keys, sizes, exit codes, and the terminal as it was.
func TestVMCoreShell(t *testing.T) {
	c := program(t)
	id := c.vm(t, "shell")
	p := tmux(t, c)
	p.types("smolvm shell " + id)
	p.shows("root@" + id)
	p.types("clear; echo $0 $TERM; stty size; tty")
	p.shows("-bash " + strings.TrimSpace(p.do("show", "-gv", "default-terminal")))
	p.shows("30 100")
	p.shows("/dev/pts/")
	p.do("set", "-g", "window-size", "manual")
	p.do("resize-window", "-x", "81", "-y", "25")
	p.types("clear; sleep 0.5; stty size")
	p.shows("25 81")
	p.sleeps("1000")
	p.keys("C-c")
	p.types("echo code=$?")
	p.shows("code=130")
	p.sleeps("1001")
	p.keys("C-z")
	p.shows("Stopped")
	p.types("kill %1")
	p.sleeps("1002")
	p.keys(`C-\`)
	p.shows("Quit")
	p.types("exit 9")
	p.shows("host>") // what is typed before is the shell's
	p.types("echo shell=$?")
	p.shows("shell=9")
	p.same()

	p.types("smolvm exec -it " + id + " -- sh -c 'read x; exit $x'; echo code=$?")
	time.Sleep(time.Second)
	p.types("5")
	p.shows("code=5")
	p.same()

	// Left by its keys, it goes on, and is joined again with what it had shown.
	p.types("smolvm shell " + id)
	p.shows("root@" + id)
	p.types("kept=still-here")
	p.sleeps("1003")
	p.keys("C-p", "C-q")
	p.shows("detached; smolvm attach " + id)
	p.same()
	p.types("smolvm attach " + id)
	p.shows("begun 1003")
	p.keys("C-c")
	time.Sleep(time.Second)
	p.types("clear; echo $kept")
	p.shows("still-here")
	p.types("exit 3")
	p.shows("host>")
	p.types("echo attach=$?")
	p.shows("attach=3")
	p.same()
}

// TestVMShellEnds: the terminal is given back when we are told to end, and when the VM is killed.
func TestVMShellEnds(t *testing.T) {
	c := program(t)
	id := c.vm(t, "shellends")
	p := tmux(t, c)
	p.types("smolvm shell " + id)
	p.shows("root@" + id)
	p.types("clear; echo in''side")
	p.shows("inside")
	out, err := exec.CommandContext(t.Context(), "pgrep", "-f", "^"+c.bin+" shell "+id).Output()
	if err != nil {
		t.Fatalf("no client: %v", err)
	}
	sendSignal(t, strings.Fields(string(out))[0], syscall.SIGTERM)
	p.shows("host>")
	p.types("echo code=$?")
	p.shows("code=143")
	p.same()

	p.types("smolvm shell " + id)
	p.shows("root@" + id)
	sendSignal(t, itoa(c.inspect(t, id).VMMPID), syscall.SIGKILL)
	p.shows("ended: ")
	p.types("echo code=$?")
	p.shows("code=125")
	p.same()
}

func sendSignal(t *testing.T, pid string, sig syscall.Signal) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "kill", "-"+itoa(int(sig)), pid).CombinedOutput(); err != nil {
		t.Fatalf("kill %s: %v: %s", pid, err, out)
	}
}
