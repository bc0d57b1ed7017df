package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// refusal is why the guest does not get what it asked for.
type refusal struct {
	status int
	rule   string
	reason string
	fault  bool // not the policy's: the outside failed
}

// Error implements error.
func (r *refusal) Error() string { return r.reason }

// answer tells the guest.
func (r *refusal) answer(w http.ResponseWriter, _ *http.Request) {
	body := struct {
		Error  string `json:"error"`
		Reason string `json:"reason"`
		Rule   string `json:"rule,omitempty"`
	}{"refused by this VM's network policy", r.reason, r.rule}
	if r.fault {
		body.Error, body.Rule = "this VM's gateway got no answer from the server", ""
	}
	b, err := json.Marshal(body)
	if err != nil {
		b = []byte(`{}`)
	}
	b = append(b, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(r.status)
	_, _ = w.Write(b)
}

// failed answers a request that got no response.
func (s *Session) failed(w http.ResponseWriter, r *http.Request, err error) {
	q := requestOf(r.Context())
	refused := q.refusal()
	if refused == nil {
		refused = s.refusalOf(r.Context(), err)
		q.refuse(refused)
	}
	refused.answer(w, r)
}

// refusalOf says what an error means to the guest.
func (s *Session) refusalOf(ctx context.Context, err error) *refusal {
	if own := asRefusal(err); own != nil {
		return own
	}
	if own := asRefusal(context.Cause(ctx)); own != nil {
		return own
	}
	if denied, ok := errors.AsType[*dial.Denied](err); ok {
		return &refusal{status: http.StatusForbidden, rule: denied.Verdict.Rule, reason: denied.Verdict.Reason}
	}
	if misuse, ok := errors.AsType[*secret.Misuse](err); ok {
		return misused(misuse)
	}
	return &refusal{status: http.StatusBadGateway, reason: s.why(err), fault: true}
}

func misused(m *secret.Misuse) *refusal {
	return &refusal{status: http.StatusForbidden, rule: "secret " + m.Name, reason: m.Error()}
}

// why says in words what failed outside.
func (s *Session) why(err error) string {
	var untrusted *tls.CertificateVerificationError
	var name *net.DNSError
	switch {
	case errors.As(err, &untrusted):
		return fmt.Sprintf("the certificate of %s is not trusted by this host: %s", s.flow.Name, untrusted.Err)
	case errors.As(err, &name):
		return fmt.Sprintf("%s cannot be resolved: %s", s.flow.Name, name.Err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%s does not answer in time", s.target())
	}
	return fmt.Sprintf("%s: %s", s.target(), err)
}
