package uplink

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
	"github.com/smolvm/smolvm/internal/sys/tail"
)

// session is one gateway process.
type session struct {
	child *child.Child
	conn  *control.Conn
	said  tail.Buffer // what it wrote to its standard error
	gone  chan struct{}

	mu      sync.Mutex
	seq     uint64
	waiting map[uint64]chan control.Answer
}

// refusal is a gateway's answer that it will not do something.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

// start starts a gateway process.
func (u *Uplink) start(ctx context.Context, wire *os.File) (*session, error) {
	names, err := os.OpenFile(u.opts.Names, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, errdefs.Host.Errorf("the file of synthetic names: %w", err)
	}
	defer func() { _ = names.Close() }()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errdefs.Host.Errorf("the gateway's control sockets: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, errdefs.Host.Errorf("the gateway's control sockets: %w", err)
	}
	s := &session{conn: control.NewConn(c), gone: make(chan struct{}), waiting: map[uint64]chan control.Answer{}}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", control.Command)
	cmd.Env = child.Environ(control.Environment()...)
	cmd.ExtraFiles = []*os.File{wire, theirs, names}
	cmd.Stderr = &s.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.child, err = child.Start(cmd); err != nil {
		_ = c.Close()
		return nil, errdefs.Host.Errorf("start the gateway: %w", err)
	}
	return s, nil
}

// startRequest says how a gateway works: it may read what finding names takes, and nothing else.
func startRequest(w wanted, o Options) control.Request {
	files := []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/proc/sys/net/core/somaxconn"}
	dirs := []string{"/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"}
	// Where resolv.conf is a link, what it leads to is replaced now and then.
	if to, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && filepath.Dir(to) != "/etc" {
		dirs = append(dirs, filepath.Dir(to))
	}
	r := w.request()
	r.Start = &control.Start{Parent: os.Getpid(), UID: o.UID, ReadFiles: files, ReadDirs: dirs, Authority: o.Authority, Plain: o.Plain}
	return r
}

// read takes what the gateway says until it hangs up. It works for a hostile guest: what it says is cut to size.
func (s *session) read(record func(api.NetRecord)) {
	defer close(s.gone)
	for {
		var a control.Answer
		if err := s.conn.Read(&a); err != nil {
			s.child.Kill()
			return
		}
		if a.Record != nil && record != nil {
			record(*a.Record)
		}
		if a.Seq == 0 {
			continue
		}
		s.mu.Lock()
		to := s.waiting[a.Seq]
		delete(s.waiting, a.Seq)
		s.mu.Unlock()
		if to != nil {
			to <- a
		}
	}
}

// ask puts one request. An error that is no refusal means that nobody knows what became of it.
func (s *session) ask(ctx context.Context, r control.Request) (control.Answer, error) {
	answer := make(chan control.Answer, 1)
	s.mu.Lock()
	s.seq++
	r.Seq = s.seq
	s.waiting[r.Seq] = answer
	s.mu.Unlock()
	if err := s.conn.Write(r); err != nil {
		return control.Answer{}, errdefs.Unavailable.Errorf("the VM's gateway: %w", err)
	}
	timeout := time.NewTimer(answerLimit)
	defer timeout.Stop()
	select {
	case a := <-answer:
		if a.Error != "" {
			return a, errdefs.Network.Errorf("the VM's gateway: %w", &refusal{excerpt.Printable(excerpt.Cut(a.Error, 500))})
		}
		return a, nil
	case <-s.gone:
		return control.Answer{}, errdefs.Unavailable.Errorf("the VM's gateway has ended: %w", s.why())
	case <-timeout.C:
		return control.Answer{}, errdefs.Timeout.Errorf("the VM's gateway does not answer within %s", answerLimit)
	case <-ctx.Done():
		return control.Answer{}, context.Cause(ctx)
	}
}

// end ends the process, if it has not ended, and waits for what it started here.
func (s *session) end() {
	s.child.Kill()
	_ = s.conn.Close()
	<-s.gone
}

// why is how the process ended.
func (s *session) why() error {
	<-s.child.Done()
	said := strings.TrimSpace(excerpt.LastLines(s.said.Bytes(), 5))
	if said == "" {
		return fmt.Errorf("the gateway ended with %s", s.child.State())
	}
	return fmt.Errorf("the gateway ended with %s: %s", s.child.State(), said)
}

func same(a, b wanted) bool { return reflect.DeepEqual(a, b) }
