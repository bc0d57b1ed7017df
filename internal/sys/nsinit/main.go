package nsinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tmp is where the private directory is in the namespaces.
const tmp = "/tmp"

// exitSetup is the exit status when the namespaces could not be made ready, as env(1) has it.
const exitSetup = 125

// Main is the init of the namespaces: the hidden subcommand. It returns the exit status.
func Main() int {
	// Nothing that runs below may keep ours open, nor what our caller's caller forgot.
	if err := unix.CloseRange(fdSelf, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintf(os.Stderr, "E: %s: %v\n", Command, err)
		return exitSetup
	}
	if os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "smolvm: %s is for smolvm itself\n", Command)
		return 2
	}
	control := os.NewFile(fdControl, "control")
	dec := json.NewDecoder(control)
	var s Spec
	if err := dec.Decode(&s); err != nil {
		return exitSetup // the parent is gone already
	}
	go func() {
		// Nothing more comes: this returns when the last copy of the other end is closed, which only the parent has.
		_, _ = io.Copy(io.Discard, control)
		os.Exit(137) // the end of an init is the end of its namespace
	}()
	code, err := s.run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "E: %s: %v\n", Command, err)
	}
	return code
}

// run makes /tmp ready, runs the program and empties /tmp.
func (s Spec) run() (code int, err error) {
	if err := s.mount(); err != nil {
		return exitSetup, err
	}
	if s.TmpDir != "" {
		defer func() {
			if eerr := empty(tmp); eerr != nil && err == nil {
				code, err = exitSetup, eerr
			}
		}()
	}
	for name, content := range s.Files {
		if err := os.WriteFile(filepath.Join(tmp, filepath.Base(name)), content, 0o644); err != nil { //nolint:gosec // apt's own user reads it
			return exitSetup, err
		}
	}
	if len(s.Argv) == 0 {
		return 0, nil
	}
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...) //nolint:noctx,gosec // it ends with this process
	cmd.Dir, cmd.Env = tmp, append(s.Env, "TMPDIR="+tmp)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		if code := e.ExitCode(); code > 0 {
			return code, nil
		}
		return exitSetup, e // killed by a signal
	}
	if err != nil {
		return exitSetup, err
	}
	return 0, nil
}

func (s Spec) mount() error {
	if s.TmpDir != "" {
		if err := os.Chmod(s.TmpDir, 0o777|os.ModeSticky); err != nil {
			return err
		}
		if err := unix.Mount(s.TmpDir, tmp, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s at %s: %w", s.TmpDir, tmp, err)
		}
		return empty(tmp)
	}
	// Device nodes are allowed: a chroot's /dev is made in there.
	opts := fmt.Sprintf("mode=1777,size=%d", s.TmpfsBytes)
	if err := unix.Mount("tmpfs", tmp, "tmpfs", unix.MS_NOSUID, opts); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", tmp, err)
	}
	return nil
}

// empty removes what is in dir, not dir.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
