package secret

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Request puts the values into a request that is about to go to host, which is the policy's name for where it goes and not
// what the request says. Headers are changed in place, the query where a secret is for it. It returns the names of the
// secrets that were put in. With a *Misuse, nothing of the request may leave.
func (s *Set) Request(host string, overTLS bool, r *http.Request) (used []string, err error) {
	if s == nil || len(s.list) == 0 {
		return nil, nil
	}
	p := pass{set: s, host: canonical(host), tls: overTLS}
	if err := p.elsewhere(r); err != nil {
		return nil, err
	}
	// All of it is looked at before anything is changed.
	header, err := p.header(r.Header)
	if err != nil {
		return nil, err
	}
	query, err := p.query(r.URL)
	if err != nil {
		return nil, err
	}
	if r.URL != nil {
		r.URL.RawQuery = query
	}
	maps.Copy(r.Header, header)
	for _, one := range s.list {
		if slices.Contains(p.used, one.Name) {
			used = append(used, one.Name)
		}
	}
	return used, nil
}

// Trailer looks at what a request says after its body. No value is put in there.
func (s *Set) Trailer(_ string, h http.Header) error {
	if s == nil {
		return nil
	}
	for name, values := range h {
		for _, v := range append([]string{name}, values...) {
			if one := s.inFold(v); one != nil {
				return &Misuse{one.Name, "trailer " + shown(name), "values are put into headers only"}
			}
		}
	}
	return nil
}

// in is the secret whose placeholder stands in a text; nil for none.
func (s *Set) in(text string) *Secret {
	if len(text) < s.shortest {
		return nil
	}
	for i := range s.list {
		if strings.Contains(text, s.list[i].Placeholder) {
			return &s.list[i]
		}
	}
	return nil
}

// inFold is in for texts whose case may have been changed on the way, as that of headers' names is.
func (s *Set) inFold(text string) *Secret {
	if len(text) < s.shortest {
		return nil
	}
	text = strings.ToLower(text)
	for i := range s.list {
		if strings.Contains(text, s.folded[i]) {
			return &s.list[i]
		}
	}
	return nil
}

// pass is one request on its way.
type pass struct {
	set  *Set
	host string
	tls  bool
	used []string
}

// elsewhere refuses placeholders where values are never put.
func (p *pass) elsewhere(r *http.Request) error {
	type place struct{ where, text string }
	places := []place{{"method", r.Method}, {"host", r.Host}}
	if u := r.URL; u != nil {
		// Once as it is, once decoded, and once as a sloppy server would decode what Go does not.
		path, _ := url.PathUnescape(u.EscapedPath())
		places = append(places, place{"host", u.Host}, place{"path", u.Path}, place{"path", u.RawPath}, place{"path", path}, place{"path", loose(u.Path)},
			place{"path", u.Opaque}, place{"path", loose(u.Opaque)}, place{"fragment", u.Fragment}, place{"fragment", u.RawFragment})
		if u.User != nil {
			password, _ := u.User.Password()
			places = append(places, place{"user of the URL", u.User.Username()}, place{"user of the URL", password})
		}
	}
	for _, at := range places {
		if one := p.set.inFold(at.text); one != nil {
			return &Misuse{one.Name, at.where, "values are put into headers only"}
		}
	}
	return nil
}

// loose decodes what is encoded and leaves alone what is encoded badly.
func loose(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if c, err := url.PathUnescape(text[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// framing are the headers that say how a message is carried. Nobody needs a value there, and it would change what they say.
func framing(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// header returns the headers that change, as they are to be.
func (p *pass) header(h http.Header) (http.Header, error) {
	changed := http.Header{}
	for name, values := range h {
		where := "header " + shown(name)
		if one := p.set.inFold(name); one != nil {
			return nil, &Misuse{one.Name, "name of a header", "values are put into headers' values only"}
		}
		for i, v := range values {
			to, err := p.value(where, v, framing(name))
			if err != nil {
				return nil, err
			}
			if to == v {
				continue
			}
			if changed[name] == nil {
				changed[name] = slices.Clone(values)
			}
			changed[name][i] = to
		}
	}
	return changed, nil
}

// value is a header's value with the secrets' values in it.
func (p *pass) value(where, v string, framing bool) (string, error) {
	to, err := p.replace(where, v, framing)
	if err != nil || to != v {
		return to, err
	}
	scheme, rest := strings.TrimLeft(v, " \t"), ""
	if i := strings.IndexAny(scheme, " \t"); i >= 0 {
		scheme, rest = scheme[:i], strings.Trim(scheme[i:], " \t")
	}
	if !strings.EqualFold(scheme, "Basic") {
		return v, nil
	}
	plain, ok := decode(rest)
	if !ok {
		return v, nil
	}
	full, err := p.replace(where, plain, framing)
	if err != nil || full == plain {
		return v, err
	}
	return scheme + " " + base64.StdEncoding.EncodeToString([]byte(full)), nil
}

// decode reads base64 in whichever of its forms.
func decode(text string) (string, bool) {
	text = strings.TrimRight(text, "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	// Bits that stand for nothing are let be, as other decoders do.
	b, err := base64.RawStdEncoding.DecodeString(text)
	return string(b), err == nil
}

// replace puts the values into a text, in one go: what a value holds is not looked at again.
func (p *pass) replace(where, text string, framing bool) (string, error) {
	var pairs []string
	for i := range p.set.list {
		one := &p.set.list[i]
		if !strings.Contains(text, one.Placeholder) {
			continue
		}
		why := p.refuses(one)
		if why == "" && framing {
			why = "no value belongs there"
		}
		if why != "" {
			return "", &Misuse{one.Name, where, why}
		}
		pairs = append(pairs, one.Placeholder, one.Value)
		p.used = append(p.used, one.Name)
	}
	if pairs == nil {
		return text, nil
	}
	return strings.NewReplacer(pairs...).Replace(text), nil
}

// refuses says why a secret may not be put into this request at all; "" when it may.
func (p *pass) refuses(one *Secret) string {
	if !one.allows(p.host) {
		return fmt.Sprintf("it is for %s, not for %s", strings.Join(one.Hosts, ", "), p.host)
	}
	if !p.tls {
		return "it is sent over TLS only"
	}
	return ""
}

// query is a URL's query with the values in it.
func (p *pass) query(u *url.URL) (string, error) {
	if u == nil || u.RawQuery == "" {
		return "", nil
	}
	raw := u.RawQuery
	if p.set.in(raw) == nil && p.set.in(loose(raw)) == nil {
		return raw, nil
	}
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		name, value, _ := strings.Cut(part, "=")
		if one := p.set.in(loose(name)); one != nil {
			return "", &Misuse{one.Name, "query", "it is the name of a parameter there"}
		}
		var pairs []string
		for j := range p.set.list {
			one := &p.set.list[j]
			if !strings.Contains(loose(value), one.Placeholder) {
				continue
			}
			why := p.refuses(one)
			switch {
			case why != "":
			case !one.Query:
				why = "it may stand in headers only"
			case !strings.Contains(value, one.Placeholder):
				why = "it is percent-encoded there"
			}
			if why != "" {
				return "", &Misuse{one.Name, "query", why}
			}
			pairs = append(pairs, one.Placeholder, url.QueryEscape(one.Value))
			p.used = append(p.used, one.Name)
		}
		if pairs != nil {
			parts[i] = name + "=" + strings.NewReplacer(pairs...).Replace(value)
		}
	}
	// It may still stand across what was taken apart, or be there once more in another form.
	to := strings.Join(parts, "&")
	if one := p.set.in(loose(to)); one != nil {
		return "", &Misuse{one.Name, "query", "it cannot be put in there"}
	}
	return to, nil
}

// shown is a header's name as people are told it.
func shown(name string) string {
	if len(name) > 64 {
		name = name[:64] + "…"
	}
	return http.CanonicalHeaderKey(name)
}
