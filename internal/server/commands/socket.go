package commands

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

const (
	firstWait = 30 * time.Second // for the command
	pingEvery = 20 * time.Second
	// A client on another host that takes nothing and answers no ping for so long is gone. One of this host is there as long as
	// its connection is: it may be a program whose reader is busy.
	silence = 2 * time.Minute
	// How long a message that is being written may take when the end has come from us.
	lastWord = time.Second
	waiting  = 64 // signals and sizes that wait for their turn
)

// Upgrading is what a request for a WebSocket brings.
type Upgrading struct {
	Upgrade   string `header:"Upgrade" doc:"websocket" example:"websocket"`
	Protocols string `header:"Sec-WebSocket-Protocol" doc:"the subprotocols that the client speaks: smolvm.v1" example:"smolvm.v1"`
}

func (u Upgrading) check() error {
	if !strings.EqualFold(u.Upgrade, "websocket") {
		return errdefs.Invalid.Errorf("this is a WebSocket, and the request is for none").WithRemedy("ask with Upgrade: websocket and the subprotocol %s", api.StreamProtocol)
	}
	for name := range strings.SplitSeq(u.Protocols, ",") {
		if strings.TrimSpace(name) == api.StreamProtocol {
			return nil
		}
	}
	return errdefs.Invalid.Errorf("Sec-WebSocket-Protocol: %q does not name %s", u.Protocols, api.StreamProtocol)
}

// socket is a WebSocket with a client.
type socket struct {
	ws       *websocket.Conn
	net      net.Conn
	remote   bool
	ctx      context.Context //nolint:containedctx // until the client is gone, or the server stops
	out      context.Context //nolint:containedctx // of what is written: its end closes the connection in the middle of a message
	gone     context.CancelCauseFunc
	end      context.CancelFunc
	controls chan api.StreamInput
	reader   chan struct{} // closed when nothing is read any more; nil before begin
}

// spy notes the connection that a WebSocket is made of, and keeps the words back in which it is refused.
type spy struct {
	http.ResponseWriter
	conn    net.Conn
	refused int // with that status
	why     []byte
}

// WriteHeader implements http.ResponseWriter.
func (s *spy) WriteHeader(status int) {
	if status >= http.StatusBadRequest {
		s.refused = status
		return
	}
	s.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (s *spy) Write(b []byte) (int, error) {
	if s.refused != 0 {
		s.why = append(s.why, b...)
		return len(b), nil
	}
	return s.ResponseWriter.Write(b)
}

// accept makes a WebSocket of a request, or answers why not and returns nil.
func (r Routes) accept(ctx context.Context, a *web.Answer) *socket {
	req, w := a.HTTP()
	seen := &spy{ResponseWriter: w}
	ws, err := websocket.Accept(seen, req, &websocket.AcceptOptions{
		Subprotocols: []string{api.StreamProtocol}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if seen.refused != 0 {
			p := web.NewProblem(errdefs.Invalid, strings.TrimSpace(string(seen.why)))
			p.Status, p.Title = seen.refused, http.StatusText(seen.refused)
			p.Answer(w)
		}
		return nil
	}
	ws.SetReadLimit(api.MaxStreamMessage)
	s := &socket{ws: ws, net: seen.conn, remote: web.PeerOf(ctx).Remote, controls: make(chan api.StreamInput, waiting)}
	ctx, s.end = untilStopped(ctx, streamGrace)
	s.ctx, s.gone = context.WithCancelCause(ctx)
	out, cut := context.WithCancel(context.WithoutCancel(ctx))
	s.out = out
	context.AfterFunc(s.ctx, func() {
		if !errors.Is(context.Cause(s.ctx), errGone) { // a message may be under way, and the last word is to follow it
			time.AfterFunc(lastWord, cut)
			return
		}
		cut()
	})
	r.Sockets.Add(1)
	if s.remote {
		go s.ping()
	}
	return s
}

// ping finds out that a client on another host is gone, and keeps what is in between from taking the connection for dead.
func (s *socket) ping() {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for heard := time.Now(); ; {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
		}
		ctx, cancel := context.WithTimeout(s.ctx, pingEvery)
		if s.ws.Ping(ctx) == nil {
			heard = time.Now()
		}
		cancel()
		if time.Since(heard) > silence {
			s.gone(errGone)
		}
	}
}

// look finds out that a client is gone from which nothing is read at the moment, since the command does not read.
func (s *socket) look() {
	under := s.net
	if t, ok := under.(interface{ NetConn() net.Conn }); ok { // TLS
		under = t.NetConn()
	}
	c, ok := under.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	hung := false
	err = raw.Control(func(fd uintptr) {
		n, perr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 0) //nolint:gosec // a descriptor
		hung = perr == nil && n > 0
	})
	if err != nil || hung {
		s.gone(errGone)
	}
}

// begin reads what the client sends, from now on: input for in, which may be nil, and the rest for control.
func (s *socket) begin(in *queue) {
	s.reader = make(chan struct{})
	go func() {
		defer close(s.reader)
		if in != nil {
			defer in.close()
		}
		for {
			kind, p, err := s.ws.Read(context.WithoutCancel(s.ctx)) // the end of its context would end the connection
			if err != nil {
				s.gone(errGone)
				return
			}
			if kind == websocket.MessageBinary {
				if in != nil && len(p) > 0 {
					in.put(p, s.look)
				}
			} else if err := s.hear(p, in); err != nil {
				s.gone(err)
			}
		}
	}()
}

// hear takes a message that is no input.
func (s *socket) hear(p []byte, in *queue) error {
	var m api.StreamInput
	if err := strict(p, &m); err != nil {
		return err
	}
	switch m.Type {
	case api.StreamStdinEnd:
		if in != nil {
			in.close()
		}
		return nil
	case api.StreamSignal:
		if _, err := signalNumber(m.Signal); err != nil {
			return err
		}
	case api.StreamResize:
		if m.Rows == 0 || m.Cols == 0 {
			return errdefs.Invalid.Errorf("resize: %d rows and %d columns", m.Rows, m.Cols)
		}
	default:
		return errdefs.Invalid.Errorf("type: %q is none of %s, %s, %s", m.Type, api.StreamStdinEnd, api.StreamResize, api.StreamSignal)
	}
	select {
	case s.controls <- m:
	case <-s.ctx.Done():
	}
	return nil
}

// control does what the client says of a command. What comes too late has nobody to hear it.
func (s *socket) control(ctx context.Context, g Runner, process string) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-s.controls:
			if m.Type == api.StreamResize {
				_ = g.Resize(ctx, process, api.TerminalSize{Rows: m.Rows, Cols: m.Cols})
			} else if n, err := signalNumber(m.Signal); err == nil {
				_ = g.Signal(ctx, process, n, m.Group)
			}
		}
	}
}

func strict(p []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errdefs.Invalid.Errorf("a message is malformed: %w", err)
	}
	return nil
}

// first reads the message that says which command is to run.
func (s *socket) first(req *api.ExecRequest) error {
	ctx, cancel := context.WithTimeout(s.ctx, firstWait)
	defer cancel()
	s.ws.SetReadLimit(maxBodyBytes)
	defer s.ws.SetReadLimit(api.MaxStreamMessage)
	kind, p, err := s.ws.Read(ctx)
	switch {
	case err != nil:
		return errGone
	case kind != websocket.MessageText:
		return errdefs.Invalid.Errorf("the first message is to be the command as JSON, in a text message")
	}
	if err := strict(p, req); err != nil {
		return err
	}
	return req.Validate()
}

// send writes a message. A client that does not read is waited for, and the command with it.
func (s *socket) send(kind websocket.MessageType, p []byte) error {
	ctx := s.out
	if s.remote {
		limited, cancel := context.WithTimeout(ctx, silence)
		defer cancel()
		ctx = limited
	}
	return s.ws.Write(ctx, kind, p)
}

// tell writes an object with a type and the fields of v. Who has gone needs no word.
func (s *socket) tell(what string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	sep := ","
	if string(b) == "{}" {
		sep = ""
	}
	_ = s.send(websocket.MessageText, append([]byte(`{"type":"`+what+`"`+sep), b[1:]...))
}

// finish tells how it ended, and closes the connection.
func (s *socket) finish(r Routes, what string, v any, err error) {
	defer r.Sockets.Done()
	defer s.end()
	code, reason := websocket.StatusNormalClosure, ""
	if err != nil {
		p := web.ProblemOf(err)
		code, reason = websocket.StatusInternalError, string(p.Code)
		what, v = api.StreamError, problem{p.Title, p.Status, p.Detail, p.Code, p.Cause, p.Remedy}
	}
	if errors.Is(err, errGone) {
		_ = s.ws.CloseNow()
	} else {
		// The last word may follow the end of ctx: the server stops, or the client made a mistake.
		last, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), silence)
		told := *s
		told.out = last
		told.tell(what, v)
		cancel()
		_ = s.ws.Close(code, reason)
	}
	s.gone(nil)
	if s.reader != nil {
		<-s.reader
	}
}

// problem is a web.Problem whose type is the message's.
type problem struct {
	Title  string        `json:"title"`
	Status int           `json:"status"`
	Detail string        `json:"detail"`
	Code   errdefs.Class `json:"code"`
	Cause  string        `json:"cause,omitempty"`
	Remedy string        `json:"remedy,omitempty"`
}

// frames makes messages of what a command prints.
type frames struct {
	s   *socket
	buf []byte // begins with the byte that names the output
}

func (s *socket) frames(name byte) *frames { return &frames{s, []byte{name}} }

// Write implements io.Writer.
func (f *frames) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		piece := p[done:min(len(p), done+api.MaxStreamMessage-1)]
		f.buf = append(f.buf[:1], piece...)
		if err := f.s.send(websocket.MessageBinary, f.buf); err != nil {
			return done, err
		}
		done += len(piece)
	}
	return len(p), nil
}

// Hijack implements http.Hijacker.
func (s *spy) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(s.ResponseWriter).Hijack()
	s.conn = c
	return c, rw, err
}
