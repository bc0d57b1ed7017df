package secret

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func request(t testing.TB, target string, headers ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

func TestRequest(t *testing.T) {
	const gh, mx = "api.github.com", "mail.example.com"
	tests := []struct {
		name    string
		host    string
		target  string
		headers []string
		want    []string // headers afterwards
		query   string
		used    []string
	}{
		{"nothing", gh, "/x?y=1", []string{"Accept", "a/b"}, []string{"a/b"}, "y=1", nil},
		{"a token", gh, "/", []string{"Authorization", "token " + githubPlace}, []string{"token " + githubValue}, "", []string{"GITHUB_TOKEN"}},
		{"the whole value", gh, "/", []string{"X-Api-Key", githubPlace}, []string{githubValue}, "", []string{"GITHUB_TOKEN"}},
		{"host in another case", "API.github.com.", "/", []string{"X-Api-Key", githubPlace}, []string{githubValue}, "", []string{"GITHUB_TOKEN"}},
		{"two values of a header", gh, "/", []string{"X-A", "one", "X-A", githubPlace}, []string{"one", githubValue}, "", []string{"GITHUB_TOKEN"}},
		{"twice in one", gh, "/", []string{"X-A", githubPlace + "," + githubPlace}, []string{githubValue + "," + githubValue}, "", []string{"GITHUB_TOKEN"}},
		{"cookie", gh, "/", []string{"Cookie", "a=1; s=" + githubPlace}, []string{"a=1; s=" + githubValue}, "", []string{"GITHUB_TOKEN"}},
		{"suffix", "a.b.example.com", "/", []string{"X-A", githubPlace}, []string{githubValue}, "", []string{"GITHUB_TOKEN"}},
		{"both, in the order of the set", mx, "/", []string{"X-A", mailPlace + githubPlace}, []string{mailValue + githubValue}, "", []string{"GITHUB_TOKEN", "MAIL"}},
		{"Basic, the password", gh, "/", []string{"Authorization", basic("me:" + githubPlace)}, []string{basic("me:" + githubValue)}, "", []string{"GITHUB_TOKEN"}},
		{"Basic, the user", gh, "/", []string{"Authorization", basic(githubPlace + ":x-oauth-basic")}, []string{basic(githubValue + ":x-oauth-basic")}, "", []string{"GITHUB_TOKEN"}},
		{"Basic for a proxy", gh, "/", []string{"Proxy-Authorization", basic("me:" + githubPlace)}, []string{basic("me:" + githubValue)}, "", []string{"GITHUB_TOKEN"}},
		{"Basic in small letters, unpadded", gh, "/", []string{"Authorization", "basic   " + strings.TrimRight(basic("m:" + githubPlace)[6:], "=")}, []string{basic("m:" + githubValue)}, "", []string{"GITHUB_TOKEN"}},
		{"Basic of others", gh, "/", []string{"Authorization", "Basic bWU6aGk"}, []string{"Basic bWU6aGk"}, "", nil},
		{"Basic that is none", gh, "/", []string{"Authorization", "Basic !!!"}, []string{"Basic !!!"}, "", nil},
		{"query", mx, "/x?a=b%20c&key=" + mailPlace + "&z", nil, nil, "a=b%20c&key=" + url.QueryEscape(mailValue) + "&z", []string{"MAIL"}},
		{"part of the query", mx, "/x?key=pre-" + mailPlace + ";x=%2f", nil, nil, "key=pre-" + url.QueryEscape(mailValue) + ";x=%2f", []string{"MAIL"}},
		{"a query that is encoded badly", mx, "/x?a=%zz&key=" + mailPlace, nil, nil, "a=%zz&key=" + url.QueryEscape(mailValue), []string{"MAIL"}},
	}
	s := newSet(t, github(), mail())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request(t, tt.target, tt.headers...)
			used, err := s.Request(tt.host, true, r)
			if err != nil || !slices.Equal(used, tt.used) {
				t.Fatalf("used %v, %v; want %v", used, err, tt.used)
			}
			var got []string
			for _, v := range r.Header {
				got = append(got, v...)
			}
			for i, v := range got {
				if scheme, rest, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "basic") && tt.used != nil {
					got[i] = "Basic " + rest
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("headers %q, want %q", got, tt.want)
			}
			if r.URL.RawQuery != tt.query {
				t.Errorf("query %q, want %q", r.URL.RawQuery, tt.query)
			}
		})
	}
}

func TestMisuse(t *testing.T) {
	const gh, mx = "api.github.com", "mail.example.com"
	percent := "%" + "67" + githubPlace[1:] // the first letter, encoded
	tests := []struct {
		name    string
		host    string
		plain   bool
		change  func(r *http.Request)
		secret  string
		message string
	}{
		{"another host", "evil.org", false, func(r *http.Request) { r.Header.Set("Authorization", "token "+githubPlace) }, "GITHUB_TOKEN", "header Authorization: it is for api.github.com, *.example.com, not for evil.org"},
		{"a host with no secrets, in Basic", "evil.org", false, func(r *http.Request) { r.Header.Set("Authorization", basic("a:"+githubPlace)) }, "GITHUB_TOKEN", "not for evil.org"},
		{"another secret's host", gh, false, func(r *http.Request) { r.Header.Set("X-A", mailPlace) }, "MAIL", "not for api.github.com"},
		{"the name above a suffix", "example.com", false, func(r *http.Request) { r.Header.Set("X-A", githubPlace) }, "GITHUB_TOKEN", "not for example.com"},
		{"plain HTTP", gh, true, func(r *http.Request) { r.Header.Set("X-A", githubPlace) }, "GITHUB_TOKEN", "over TLS only"},
		{"plain HTTP, Basic", gh, true, func(r *http.Request) { r.Header.Set("Authorization", basic(":"+githubPlace)) }, "GITHUB_TOKEN", "over TLS only"},
		{"the name of a header", gh, false, func(r *http.Request) { r.Header.Set("X-"+githubPlace, "1") }, "GITHUB_TOKEN", "name of a header"},
		{"Connection", gh, false, func(r *http.Request) { r.Header.Set("Connection", githubPlace) }, "GITHUB_TOKEN", "header Connection: no value belongs"},
		{"Transfer-Encoding", gh, false, func(r *http.Request) { r.Header.Set("Transfer-Encoding", githubPlace) }, "GITHUB_TOKEN", "no value belongs"},
		{"the method", gh, false, func(r *http.Request) { r.Method = githubPlace }, "GITHUB_TOKEN", "method"},
		{"Host", gh, false, func(r *http.Request) { r.Host = githubPlace }, "GITHUB_TOKEN", "host"},
		{"Host, in small letters", gh, false, func(r *http.Request) { r.Host = strings.ToLower(githubPlace) + ".example.com" }, "GITHUB_TOKEN", "host"},
		{"the path", gh, false, func(r *http.Request) { r.URL.Path = "/bot" + githubPlace + "/x" }, "GITHUB_TOKEN", "path"},
		{"the path, encoded", gh, false, func(r *http.Request) { r.URL, _ = url.Parse("https://a/" + percent) }, "GITHUB_TOKEN", "path"},
		{"the path, encoded twice", gh, false, func(r *http.Request) { r.URL.Path = "/" + percent }, "GITHUB_TOKEN", "path"},
		{"an opaque URL", gh, false, func(r *http.Request) { r.URL.Opaque = "//a/" + percent }, "GITHUB_TOKEN", "path"},
		{"the fragment", gh, false, func(r *http.Request) { r.URL.Fragment = githubPlace }, "GITHUB_TOKEN", "fragment"},
		{"the URL's user", gh, false, func(r *http.Request) { r.URL.User = url.UserPassword("a", githubPlace) }, "GITHUB_TOKEN", "user of the URL"},
		{"the query, unasked", gh, false, func(r *http.Request) { r.URL.RawQuery = "a=" + githubPlace }, "GITHUB_TOKEN", "query: it may stand in headers only"},
		{"the query, encoded", gh, false, func(r *http.Request) { r.URL.RawQuery = "a=" + percent }, "GITHUB_TOKEN", "headers only"},
		{"the query, encoded, allowed", mx, false, func(r *http.Request) { r.URL.RawQuery = "a=%50" + mailPlace[1:] }, "MAIL", "percent-encoded"},
		{"the query's name", mx, false, func(r *http.Request) { r.URL.RawQuery = mailPlace + "=a" }, "MAIL", "name of a parameter"},
		{"the query of another host", "evil.org", false, func(r *http.Request) { r.URL.RawQuery = "a=" + mailPlace }, "MAIL", "not for evil.org"},
		{"the query over plain HTTP", mx, true, func(r *http.Request) { r.URL.RawQuery = "a=" + mailPlace }, "MAIL", "over TLS only"},
		{"the query, both forms", mx, false, func(r *http.Request) { r.URL.RawQuery = "a=" + mailPlace + "%50" + mailPlace[1:] }, "MAIL", "cannot be put"},
	}
	s := newSet(t, github(), mail())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request(t, "https://x.example.com/")
			tt.change(r)
			r.Header.Set("X-Also", "1")
			before := r.Clone(t.Context())
			used, err := s.Request(tt.host, !tt.plain, r)
			var m *Misuse
			if !errors.As(err, &m) || used != nil || m.Name != tt.secret || !strings.Contains(m.Error(), tt.message) {
				t.Fatalf("used %v, error %v", used, err)
			}
			if strings.Contains(err.Error(), githubValue) || strings.Contains(err.Error(), mailValue) {
				t.Error("the error tells the value")
			}
			for name, v := range before.Header {
				if !slices.Equal(v, r.Header[name]) {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

// TestNotPutTwice: what a value holds is not taken for a placeholder.
func TestNotPutTwice(t *testing.T) {
	a, b := github(), mail()
	a.Value, b.Hosts = mailPlace, []string{"api.github.com"}
	r := request(t, "/", "X-A", githubPlace+" "+mailPlace)
	if _, err := newSet(t, a, b).Request("api.github.com", true, r); err != nil || r.Header.Get("X-A") != mailPlace+" "+mailValue {
		t.Errorf("%q, %v", r.Header.Get("X-A"), err)
	}
}

func TestTrailer(t *testing.T) {
	s := newSet(t, github())
	var m *Misuse
	if err := s.Trailer("api.github.com", http.Header{"X-Sum": {githubPlace}}); !errors.As(err, &m) || !strings.Contains(err.Error(), "trailer X-Sum") {
		t.Error(err)
	}
	if err := s.Trailer("api.github.com", http.Header{"X-Sum": {"1"}}); err != nil {
		t.Error(err)
	}
}

// FuzzRequest: a placeholder never goes out to a host that has no secret, and a value neither.
func FuzzRequest(f *testing.F) {
	f.Add("X-A", "Bearer "+githubPlace, "/a", "b="+mailPlace)
	f.Add("Authorization", basic(mailPlace+":"+githubPlace), "/%2e", "%50LACEHOLDERofmail0000001=&;")
	f.Add("Connection", "x", "/"+githubPlace, "")
	s := newSet(f, github(), mail())
	f.Fuzz(func(t *testing.T, name, value, path, query string) {
		for _, host := range []string{"evil.org", "api.github.com", "mail.example.com"} {
			r := &http.Request{Method: http.MethodGet, Header: http.Header{name: {value}}, URL: &url.URL{Path: path, RawQuery: query}}
			_, err := s.Request(host, true, r)
			text := strings.Join(append(r.Header[name], r.URL.Path, r.URL.RawQuery, loose(r.URL.RawQuery)), "\n")
			given := strings.Contains(value+path+loose(query), githubValue) || strings.Contains(value+path+loose(query), mailValue)
			if !given && (err != nil || host == "evil.org") && (strings.Contains(text, githubValue) || strings.Contains(text, mailValue)) {
				t.Errorf("%s: a value is there although %v", host, err)
			}
			if err == nil && (strings.Contains(text, githubPlace) || strings.Contains(text, mailPlace)) {
				t.Errorf("%s: a placeholder passes: %q", host, text)
			}
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	s := newSet(b, github(), mail())
	r := request(b, "https://api.github.com/repos/a/b/issues?state=open", "Accept", "*/*", "User-Agent", "curl/8.5.0 (x86_64-pc-linux-gnu)", "X-Request-Id", "0123456789abcdef0123456789abcdef")
	b.ReportAllocs()
	for b.Loop() {
		r.Header["Authorization"] = []string{"Bearer " + githubPlace}
		if _, err := s.Request("api.github.com", true, r); err != nil {
			b.Fatal(err)
		}
	}
}
