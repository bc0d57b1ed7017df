package docs

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestOffline: the page loads nothing from elsewhere, and all that it loads is there.
func TestOffline(t *testing.T) {
	mux := http.NewServeMux()
	Register(mux)
	get := func(path string) (*httptest.ResponseRecorder, string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w, w.Body.String()
	}
	res, html := get(Path)
	if res.Code != http.StatusOK || !strings.HasPrefix(res.Header().Get("Content-Type"), "text/html") {
		t.Fatalf("%d %v", res.Code, res.Header())
	}
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "frame-ancestors 'none'"} {
		if !strings.Contains(res.Header().Get("Content-Security-Policy"), want) {
			t.Errorf("the policy lacks %s", want)
		}
	}
	if strings.Contains(html, "://") || strings.Contains(html, "<script>") {
		t.Errorf("the page leads elsewhere, or has a script in it: %s", html)
	}
	links := regexp.MustCompile(`(?:src|href)="(/docs/[^"]+)"`).FindAllStringSubmatch(html, -1)
	if len(links) != 4 {
		t.Errorf("%v", links)
	}
	for _, l := range links {
		if res, b := get(l[1]); res.Code != http.StatusOK || len(b) < 200 {
			t.Errorf("%s: %d, %d bytes", l[1], res.Code, len(b))
		}
	}
	if res, _ := get(Path + "/../server.go"); res.Code == http.StatusOK {
		t.Error("more than the page is there")
	}
}
