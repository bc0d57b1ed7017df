package proxy

import (
	"io"
	"net/http"
	"testing"
)

// BenchmarkRequest is one request on a connection that is there, and the same without a proxy.
func BenchmarkRequest(b *testing.B) {
	for _, h2 := range []bool{false, true} {
		name := map[bool]string{false: "1.1", true: "2"}[h2]
		r := newRig(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
		for way, c := range map[string]*http.Client{"looked into": r.client(h2), "direct": r.direct(h2)} {
			b.Run("HTTP "+name+" "+way, func(b *testing.B) {
				for b.Loop() {
					if got, err := r.do(c, http.MethodGet, "https://"+site+"/", nil); err != nil || got.body != "hello" {
						b.Fatal(got, err)
					}
				}
			})
		}
	}
}
