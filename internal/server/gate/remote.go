package gate

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

// How many wrong tokens are answered at once and per second, and how long one may wait for its answer.
const (
	wrongAtOnce    = 10
	wrongPerSecond = 2
	wrongWaits     = 5 * time.Second
)

// Remote says who may ask over TCP.
type Remote struct {
	// Token is what a request must show. It is asked each time, so that another one is in force at once.
	Token func() (string, error)
	// Named reports whether a host name is one of ours. Addresses always are: a page of somebody else's that is led here by its
	// own name shows that name.
	Named func(host string) bool
	// Open are the paths that show nothing of anybody's, so that they need no token.
	Open []string

	log   *slog.Logger
	wrong *rate.Limiter
}

// NewRemote returns a Remote.
func NewRemote(log *slog.Logger, token func() (string, error), named func(string) bool, open ...string) *Remote {
	return &Remote{Token: token, Named: named, Open: open, log: log, wrong: rate.NewLimiter(wrongPerSecond, wrongAtOnce)}
}

func (m *Remote) check(w http.ResponseWriter, r *http.Request) error {
	if m == nil {
		return errdefs.Denied.Errorf("nobody may ask over TCP")
	}
	if err := m.origin(r); err != nil {
		return err
	}
	for _, path := range m.Open {
		if r.URL.Path == path || strings.HasSuffix(path, "/") && strings.HasPrefix(r.URL.Path, path) {
			return nil
		}
	}
	return m.token(w, r)
}

// origin refuses what a browser sends for a page that is not ours: one that was led here by another name (DNS rebinding), and
// one of another site.
func (m *Remote) origin(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err != nil && !m.Named(strings.ToLower(strings.TrimSuffix(host, "."))) {
		return errdefs.Denied.Errorf("host %q is not this server", r.Host).WithRemedy("name it by its address, or by a name that its certificate has")
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return errdefs.Denied.Errorf("a page of another site may not ask")
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if u, err := url.Parse(origin); err != nil || u.Scheme != scheme || u.Host != r.Host {
		return errdefs.Denied.Errorf("a page of %q may not ask", origin)
	}
	return nil
}

// token compares hashes, so that the time it takes tells nothing. A wrong one waits for its answer, and too many get none; a
// right one never waits.
func (m *Remote) token(w http.ResponseWriter, r *http.Request) error {
	want, err := m.Token()
	if err != nil { // where it lies is not for who has none
		m.log.Error("the token cannot be read, so that nobody may ask over TCP", "error", err)
		return errdefs.Unavailable.Errorf("the server has no token that it can read").WithRemedy("smolvm token --rotate")
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(strings.TrimSpace(given)))
	if want != "" && strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(a[:], b[:]) == 1 {
		return nil
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="smolvm"`)
	turn := m.wrong.Reserve()
	if wait := turn.Delay(); wait > wrongWaits {
		turn.Cancel()
		w.Header().Set("Retry-After", strconv.Itoa(int(wrongWaits/time.Second)))
		return errdefs.Exhausted.Errorf("too many requests without the right token")
	} else if !sleep(r.Context(), wait) {
		return r.Context().Err()
	}
	p := web.NewProblem(errdefs.Denied, "the token is missing or wrong")
	p.Status, p.Title = http.StatusUnauthorized, http.StatusText(http.StatusUnauthorized)
	p.Remedy = "smolvm token, on the server's host; send it as Authorization: Bearer TOKEN"
	return p
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
