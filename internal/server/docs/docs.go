// Package docs is the page on which the HTTP API is explained and tried. It needs nothing from anywhere else: Swagger UI is in
// this program.
//
// Layer: part of the front server. It imports none of ours.
package docs

import (
	"embed"
	"net/http"

	"github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"
)

// Path is where it lies, and what it is made of below that.
const Path = "/docs"

//go:embed page
var page embed.FS

// policy lets the page run nothing but what is served here, load nothing from elsewhere, and stand in nobody's frame. Swagger
// UI sets styles itself, and draws with data: images.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Register adds the page to mux.
func Register(mux *http.ServeMux) {
	assets := http.StripPrefix(Path+"/", statigz.FileServer(static.FS))
	own := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, page, "page/"+name) })
	}
	for pattern, h := range map[string]http.Handler{
		Path: own("docs.html"), Path + "/{$}": own("docs.html"), Path + "/docs.js": own("docs.js"),
		Path + "/swagger-ui.css": assets, Path + "/swagger-ui-bundle.js": assets, Path + "/favicon-32x32.png": assets,
	} {
		mux.Handle("GET "+pattern, guarded(h))
	}
}

func guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		h.ServeHTTP(w, r)
	})
}
