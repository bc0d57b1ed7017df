package terminal

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
)

func TestKeys(t *testing.T) {
	tests := []struct {
		text string
		want []byte
		ok   bool
	}{
		{DetachKeys, []byte{16, 17}, true},
		{"", nil, true},
		{"a,ctrl-@,ctrl-_,ctrl-[", []byte{'a', 0, 31, 27}, true},
		{"ctrl-", nil, false},
		{"ctrl-!", nil, false},
		{"ab", nil, false},
		{"é", nil, false},
		{",", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			var k Keys
			if err := k.Set(tt.text); (err == nil) != tt.ok || tt.ok && !bytes.Equal(k, tt.want) || tt.ok && k.String() != tt.text {
				t.Errorf("%v, %v, %q", k, err, k.String())
			}
		})
	}
}

func TestInput(t *testing.T) {
	tests := []struct {
		name, in, out string
		keys          string
		detached      bool
	}{
		{"plain", "abc", "abc", "\x10\x11", false},
		{"keys", "ab\x10\x11cd", "ab", "\x10\x11", true},
		{"half of them", "a\x10b\x10", "a\x10b\x10", "\x10\x11", false},
		{"twice the first", "a\x10\x10\x11", "a\x10", "\x10\x11", true},
		{"one key", "ab\x1d", "ab", "\x1d", true},
		{"none", "ab\x10\x11", "ab\x10\x11", "", false},
	}
	for _, tt := range tests {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(tt.in), "bytes": iotest.OneByteReader(strings.NewReader(tt.in))} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				detached := false
				got, err := io.ReadAll(&Input{R: r, Keys: []byte(tt.keys), Detach: func() { detached = true }})
				if err != nil || string(got) != tt.out || detached != tt.detached {
					t.Errorf("%q, %v, detached %v", got, err, detached)
				}
			})
		}
	}
}

// FuzzInput: nothing is lost before the keys, and nothing comes after them.
func FuzzInput(f *testing.F) {
	f.Add([]byte("a\x10\x10\x11b"), 3)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		keys := []byte{16, 17}
		want, _, found := bytes.Cut(in, keys)
		detached := false
		r := &Input{R: bytes.NewReader(in), Keys: keys, Detach: func() { detached = true }}
		var got []byte
		buf := make([]byte, 1+max(n, -n)%7&7)
		for {
			n, err := r.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, want) || detached != found {
			t.Errorf("%q of %q, detached %v", got, in, detached)
		}
	})
}

func flags(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func TestTerminal(t *testing.T) {
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	if err := pty.Setsize(ours, &pty.Winsize{Rows: 11, Cols: 22}); err != nil {
		t.Fatal(err)
	}
	before := flags(t, theirs)
	term, err := Open(true, theirs)
	if err != nil {
		t.Fatal(err)
	}
	if now := flags(t, theirs); now.Lflag&(unix.ECHO|unix.ISIG|unix.ICANON) != 0 || !term.Raw() {
		t.Errorf("it is not raw: %+v", now)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	select {
	case size := <-term.Sizes():
		if size != (api.TerminalSize{Rows: 11, Cols: 22}) {
			t.Errorf("%+v", size)
		}
	case <-time.After(10 * time.Second):
		t.Error("no size")
	}
	term.Close()
	term.Close()
	if now := flags(t, theirs); now != before {
		t.Errorf("it was %+v and is %+v", before, now)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := Open(true, file); err == nil || Is(file) {
		t.Error("/dev/null is a terminal")
	}
	if s := Size(file); s != (api.TerminalSize{Rows: 24, Cols: 80}) {
		t.Errorf("%+v", s)
	}
}
