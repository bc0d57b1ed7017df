package egress

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha1" //nolint:gosec // npm's format has it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repositoriesVar names the folder of the repositories that the outside's github.com has. Without it there is none of these services.
const repositoriesVar = "SMOLVM_EGRESS_REPOSITORIES"

// serviceNames are the hosts of what clients use most: servers of our own by the names that everybody knows.
func serviceNames() []string {
	return []string{"github.com", "api.github.com", "pypi.org", "files.pythonhosted.org", "registry.npmjs.org"}
}

// newRepositories makes acme/tools, acme/manual and other/private, each with one file, and has the outside serve them.
func newRepositories(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(repositoriesVar, dir)
	// What the host's user has set is no matter here.
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	git := func(in string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		cmd.Dir = in
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, name := range []string{"acme/tools.git", "acme/manual.git", "other/private.git"} {
		bare, work := filepath.Join(dir, name), t.TempDir()
		git(dir, "init", "-q", "--bare", "-b", "main", bare)
		git(bare, "config", "http.receivepack", "true")
		git(work, "init", "-q", "-b", "main")
		if err := os.WriteFile(filepath.Join(work, "README"), []byte("this is "+name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		git(work, "add", ".")
		git(work, "commit", "-q", "-m", "begin")
		git(work, "push", "-q", bare, "main")
	}
}

// addServices has a site serve what clients of git, pip, npm and curl ask for.
func addServices(mux *http.ServeMux) {
	repositories := os.Getenv(repositoriesVar)
	if repositories == "" {
		return
	}
	mux.HandleFunc("github.com/", gitServer(repositories))
	mux.HandleFunc("api.github.com/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "%s %s got %d bytes\n", r.Proto, r.Method, n)
	})
	for name, needs := range map[string]string{"requests": "urllib3", "urllib3": "", "closed": ""} {
		serveWheel(mux, name, needs)
	}
	serveNPM(mux, "left-pad", "@acme/ribbon", false)
	serveNPM(mux, "@acme/ribbon", "", true)
	serveNPM(mux, "closed", "", false)
	for _, host := range []string{"pypi.org/", "files.pythonhosted.org/", "registry.npmjs.org/"} {
		mux.HandleFunc(host, http.NotFound)
	}
}

// gitServer is git's own, by HTTP. Who pushes needs the token.
func gitServer(repositories string) http.HandlerFunc {
	where, err := exec.Command("git", "--exec-path").Output() //nolint:noctx // ends at once
	must(err)
	backend := filepath.Join(strings.TrimSpace(string(where)), "git-http-backend")
	return func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if (strings.HasSuffix(r.URL.Path, "/git-receive-pack") || r.URL.Query().Get("service") == "git-receive-pack") && password != tokenValue {
			w.Header().Set("WWW-Authenticate", `Basic realm="the outside"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		b, err := io.ReadAll(r.Body) // CGI wants to know the length
		if err != nil {
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
		r.Header.Del("Authorization")
		(&cgi.Handler{Path: backend, Env: []string{
			"GIT_PROJECT_ROOT=" + repositories, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		}}).ServeHTTP(w, r)
	}
}

// serveWheel has the index name a package of Python's, which may need another one.
func serveWheel(mux *http.ServeMux, name, needs string) {
	metadata := "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0.0\n"
	if needs != "" {
		metadata += "Requires-Dist: " + needs + "\n"
	}
	info := name + "-1.0.0.dist-info/"
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	record := ""
	for _, f := range [][2]string{
		{name + "/__init__.py", "ORIGIN = 'the outside'\n"},
		{info + "METADATA", metadata},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	} {
		sum := sha256.Sum256([]byte(f[1]))
		record += fmt.Sprintf("%s,sha256=%s,%d\n", f[0], base64.RawURLEncoding.EncodeToString(sum[:]), len(f[1]))
		w, err := z.Create(f[0])
		must(err)
		_, _ = io.WriteString(w, f[1])
	}
	w, err := z.Create(info + "RECORD")
	must(err)
	_, _ = io.WriteString(w, record+info+"RECORD,,\n")
	must(z.Close())
	file := "/packages/" + name + "-1.0.0-py3-none-any.whl"
	mux.HandleFunc("pypi.org/simple/"+name+"/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, "<!DOCTYPE html><a href=\"https://files.pythonhosted.org%s#sha256=%x\">%s</a>\n", file, sha256.Sum256(b.Bytes()), filepath.Base(file))
	})
	mux.HandleFunc("files.pythonhosted.org"+file, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b.Bytes()) })
}

// serveNPM has the registry offer a package, which may need another one, and be for those who have the token only.
func serveNPM(mux *http.ServeMux, name, needs string, private bool) {
	manifest := map[string]any{"name": name, "version": "1.0.0", "main": "index.js"}
	if needs != "" {
		manifest["dependencies"] = map[string]string{needs: "^1.0.0"}
	}
	text, err := json.Marshal(manifest)
	must(err)
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	t := tar.NewWriter(g)
	for _, f := range [][2]string{{"package/package.json", string(text)}, {"package/index.js", "module.exports = 'the outside';\n"}} {
		must(t.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}))
		_, _ = io.WriteString(t, f[1])
	}
	must(t.Close())
	must(g.Close())
	file := "/" + name + "/-/" + name[strings.LastIndexByte(name, '/')+1:] + "-1.0.0.tgz"
	long, short := sha512.Sum512(b.Bytes()), sha1.Sum(b.Bytes()) //nolint:gosec // npm's format has it
	manifest["dist"] = map[string]string{
		"tarball": "https://registry.npmjs.org" + file, "integrity": "sha512-" + base64.StdEncoding.EncodeToString(long[:]), "shasum": hex.EncodeToString(short[:]),
	}
	about, err := json.Marshal(map[string]any{
		"name": name, "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": manifest},
	})
	must(err)
	serve := func(kind string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if private && r.Header.Get("Authorization") != "Bearer "+keyValue {
				http.Error(w, `{"error": "who are you?"}`, http.StatusUnauthorized)
				return
			}
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(body)
		}
	}
	// A slash within a name comes encoded.
	mux.HandleFunc("GET registry.npmjs.org/"+strings.ReplaceAll(name, "/", "%2F"), serve("application/json", about))
	mux.HandleFunc("GET registry.npmjs.org"+file, serve("application/octet-stream", b.Bytes()))
}
