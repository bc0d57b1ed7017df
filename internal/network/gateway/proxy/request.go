package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
)

// request is one request of the guest's.
type request struct {
	record  api.NetRecord
	path    string // decoded, as the policy decides it; "" when it cannot be
	raw     string // to be sent; "" when the path is sent as it came
	verdict network.RequestVerdict
	cancel  context.CancelCauseFunc

	in, out atomic.Int64 // bytes of bodies
	mu      sync.Mutex
	refused *refusal
}

// refuse notes why a request may not go on, and ends it.
func (q *request) refuse(r *refusal) {
	q.mu.Lock()
	if q.refused == nil {
		q.refused = r
	}
	q.mu.Unlock()
	q.cancel(r)
}

func (q *request) refusal() *refusal {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.refused
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

// maxRecorded bounds what of a path is recorded.
const maxRecorded = 1024

// ServeHTTP decides one request, and serves it.
func (s *Session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		return
	}
	defer s.leave()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	q := &request{cancel: cancel, record: api.NetRecord{
		Time: time.Now(), Kind: "http", Name: s.flow.Name, Port: int(s.flow.Port), Proto: s.scheme(), Verdict: "allow", Method: short(r.Method, 32),
		HTTPVersion: strings.Replace(r.Proto, "2.0", "2", 1), // it has no minor version
	}}
	counted := &writer{ResponseWriter: w, q: q}
	// First its place, then the question: a policy that changes meanwhile finds it there.
	refused := s.decide(q, r)
	defer s.done(q, counted)
	if refused == nil {
		refused = q.refusal()
	}
	if refused != nil {
		q.refuse(refused)
		refused.answer(counted, r)
		return
	}
	if r.ProtoMajor == 1 {
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	s.proxy.ServeHTTP(counted, r.WithContext(context.WithValue(ctx, requestKey{}, q)))
}

// decide says why a request may not be; nil: it may. It gives it its place among those that are under way.
func (s *Session) decide(q *request, r *http.Request) *refusal {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	path, perr := network.CleanPath(raw)
	if perr == nil {
		q.path, q.raw, q.record.Path = path.Clean, path.Raw, short(path.Clean, maxRecorded)
	} else {
		q.record.Path = short(raw, maxRecorded)
	}
	s.mu.Lock()
	s.active[q] = struct{}{}
	s.mu.Unlock()
	if bad := s.malformed(r, raw); bad != nil {
		return bad
	}
	q.verdict = s.p.o.Policy().Request(s.flow, r.Method, q.path)
	q.record.Rule = q.verdict.Rule
	if !q.verdict.Allow {
		reason := q.verdict.Reason
		if perr != nil {
			reason = perr.Error() + "; " + reason
		}
		return &refusal{status: http.StatusForbidden, rule: q.verdict.Rule, reason: reason}
	}
	return nil
}

// malformed refuses what a server behind us could take for another request than the one that is decided.
func (s *Session) malformed(r *http.Request, raw string) *refusal {
	refuse := func(status int, format string, args ...any) *refusal {
		return &refusal{status: status, rule: "http", reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return refuse(http.StatusMethodNotAllowed, "the method %s is not for this connection", r.Method)
	case r.URL.Scheme != "" || r.URL.Host != "" || raw == "" || raw[0] != '/':
		return refuse(http.StatusBadRequest, "what is asked for must be a path; nobody here is a proxy for other names")
	case s.misnamed():
		return refuse(http.StatusMisdirectedRequest, "the handshake asked for %.80q, and the connection is to %s", s.sni, s.flow.Name)
	case !s.itself(r.Host):
		return refuse(http.StatusMisdirectedRequest, "the request is for %.80q, and the connection to %s", r.Host, s.flow.Name)
	}
	for _, host := range r.Header["Host"] { // beside an :authority
		if !s.itself(host) {
			return refuse(http.StatusMisdirectedRequest, "the request is for %.80q too, and the connection to %s", host, s.flow.Name)
		}
	}
	for name := range r.Header {
		if overrides(name) {
			return refuse(http.StatusForbidden, "the header %.80q may make it another request than the one that is decided", name)
		}
	}
	return nil
}

// overrides reports whether some servers take another method or path than the request's from this header. To many of them, an
// underscore in its name is a hyphen.
func overrides(name string) bool {
	switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
	case "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url", "x-original-uri":
		return true
	}
	return false
}

// itself reports whether a Host is the flow's name, with its port or none.
func (s *Session) itself(host string) bool {
	if sameName(host, s.flow.Name) {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	return err == nil && port == strconv.Itoa(int(s.flow.Port)) && sameName(name, s.flow.Name)
}

// rewrite makes the request that goes out.
func (s *Session) rewrite(r *httputil.ProxyRequest) {
	q := requestOf(r.In.Context())
	out := r.Out
	out.URL.Scheme, out.URL.Host, out.Host = s.scheme(), s.target(), s.flow.Name
	if strings.Contains(r.In.Host, ":") {
		out.Host = s.target()
	}
	if q.raw != "" {
		out.URL.Opaque = q.raw // exactly what was decided
	}
	// As it came, also what the standard library cannot read.
	out.URL.RawQuery, out.URL.ForceQuery = r.In.URL.RawQuery, r.In.URL.ForceQuery
	out.Trailer = r.In.Trailer // filled once the body has ended
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, there := r.In.Header[name]; there {
			out.Header[name] = v
		}
	}
	// Behind any other protocol there could be requests that nobody looks at.
	if up := out.Header.Get("Upgrade"); up != "" && !strings.EqualFold(up, "websocket") {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
}

func (s *Session) scheme() string {
	if s.secure {
		return "https"
	}
	return "http"
}

// target is where requests go.
func (s *Session) target() string {
	return net.JoinHostPort(s.flow.Name, strconv.Itoa(int(s.flow.Port)))
}

// done takes the request from those that are under way and records it.
func (s *Session) done(q *request, w *writer) {
	s.mu.Lock()
	delete(s.active, q)
	addr := s.addr
	s.mu.Unlock()
	if n := q.in.Load(); s.gather != nil && n > 0 && n < wholeBelow && !w.flushed {
		s.gather.expect()
	}
	r := q.record
	if w.status != 0 {
		r.Status = w.status
	}
	if addr.IsValid() {
		r.Addr = addr.String()
	}
	r.BytesIn, r.BytesOut, r.DurationMs = q.in.Load(), q.out.Load(), time.Since(r.Time).Milliseconds()
	if refused := q.refusal(); refused != nil {
		r.Verdict, r.Rule, r.Reason = "deny", refused.rule, refused.reason
		if refused.fault {
			r.Verdict, r.Rule = "allow", q.verdict.Rule
		}
	}
	s.p.o.Record(r)
}

func short(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// writer counts what goes to the guest.
type writer struct {
	http.ResponseWriter
	q       *request
	status  int
	flushed bool
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// FlushError is what http.ResponseController calls.
func (w *writer) FlushError() error {
	w.flushed = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// WriteHeader notes the status.
func (w *writer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (w *writer) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.q.in.Add(int64(n))
	return n, err
}

// asRefusal is the refusal of ours in an error; nil for none.
func asRefusal(err error) *refusal {
	r, _ := errors.AsType[*refusal](err)
	return r
}
