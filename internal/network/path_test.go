package network

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanPath(t *testing.T) {
	tests := []struct{ in, clean, raw string }{
		{"/", "/", "/"},
		{"", "/", "/"},
		{"/a/b", "/a/b", "/a/b"},
		{"/a/", "/a/", "/a/"},
		{"/%41%2d~%7E", "/A-~~", "/%41%2d~%7E"},
		{"/@scope%2fname", "/@scope%2Fname", "/@scope%2fname"},
		{"/@scope%2Fname", "/@scope%2Fname", "/@scope%2Fname"},
		{"/b%C3%BCcher", "/bücher", "/b%C3%BCcher"},
		{"/bücher", "/bücher", "/b%C3%BCcher"},
		{"/a b|{c}", "/a b|{c}", "/a%20b%7C%7Bc%7D"},
		{"/100%25", "/100%", "/100%25"},
		{"/%25zz", "/%zz", "/%25zz"},
		{"/%25%2F", "/%%2F", "/%25%2F"},
		{"/a:b@c,d=e+f!$&'()*", "/a:b@c,d=e+f!$&'()*", "/a:b@c,d=e+f!$&'()*"},
		{"/...", "/...", "/..."},
		{"/.git/a.", "/.git/a.", "/.git/a."},
		{"/v1/x:batch", "/v1/x:batch", "/v1/x:batch"},
	}
	for _, tt := range tests {
		got, err := CleanPath(tt.in)
		if err != nil || got != (Path{tt.clean, tt.raw}) {
			t.Errorf("%q: %+v (%v), want %q and %q", tt.in, got, err, tt.clean, tt.raw)
		}
	}
}

func TestCleanPathRefuses(t *testing.T) {
	tests := map[string][]string{
		"does not begin":          {"a", "*", "http://a/", "%2fa", "?a"},
		"the segment .":           {"/.", "/./a", "/a/.", "/%2e/a", "/a%2f.%2fb", "/a%2F%2E"},
		"the segment ..":          {"/..", "/../a", "/a/../b", "/a/%2e%2E/b", "/a/.%2e", "/a%2f..", "/..%2fa", "/a/%2e%2e%2fb"},
		"two slashes":             {"//", "//a", "/a//b", "/a//", "/%2f", "/a%2F%2fb", "/a%2f/b", "/a/%2fb"},
		"a semicolon":             {"/a;b", "/;", "/a%3bb", "/..;/a"},
		"a backslash":             {`/a\b`, "/a%5cb", "/%5C..%5C"},
		"a control byte":          {"/a\nb", "/%00", "/a%0d%0a", "/\x7f", "/%7f", "/%1f"},
		"a query or a fragment":   {"/a?b", "/a#b"},
		"an encoded question":     {"/a%3fb", "/a%3Fb"},
		"an encoded hash":         {"/a%23b"},
		"not UTF-8":               {"/\xff", "/%ff", "/%c0%af", "/%e0%80%af", "/%ed%a0%80"},
		"encoded twice":           {"/%252e", "/%252f", "/%25%32f", "/%252%66", "/%25%32%66", "/%25aa"},
		"that encodes nothing":    {"/%", "/%2", "/%zz", "/a%", "/%%32f", "/%2%66"},
		"8193 bytes, more than 8": {"/" + strings.Repeat("a", 8192)},
	}
	for says, paths := range tests {
		for _, p := range paths {
			if got, err := CleanPath(p); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%q: %+v (%v), want %q", p, got, err, says)
			}
		}
	}
}

// FuzzCleanPath: what is decided on is what is sent, to every server that decodes it once, and nobody can decode it again.
func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/", "/a%2fb", "/%252f", "/a;b", "/\xff", "/%c3%28", `/\`, "//", "/a b{", "/%25%32%66", "/100%25/%2F"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := CleanPath(text)
		if err != nil {
			return
		}
		if again, err := CleanPath(p.Raw); err != nil || again != p {
			t.Errorf("%q: %+v, and again %+v (%v)", text, p, again, err)
		}
		decoded, err := url.PathUnescape(p.Raw)
		if err != nil || decoded != strings.ReplaceAll(p.Clean, "%2F", "/") || !utf8.ValidString(decoded) {
			t.Errorf("%q: %+v decodes to %q (%v)", text, p, decoded, err)
		}
		if u := (&url.URL{Path: decoded, RawPath: p.Raw}); u.EscapedPath() != p.Raw {
			t.Errorf("%q: sent as %q, not %q", text, u.EscapedPath(), p.Raw)
		}
		if twice, err := url.PathUnescape(decoded); err == nil && twice != decoded {
			t.Errorf("%q: %q decodes once more, to %q", text, decoded, twice)
		}
		if strings.ContainsAny(decoded, "\\;?#\x00\r\n") || strings.Contains(decoded, "//") || strings.Contains(decoded+"/", "/../") || strings.Contains(decoded+"/", "/./") {
			t.Errorf("%q: %q passed", text, decoded)
		}
	})
}
