package archtest

import (
	"slices"
	"strings"
	"testing"
)

// layer is one row of the table in docs/architecture.md: a folder with what is below it, and what it may import of ours.
// What lies in the same layer may import each other where within says so.
type layer struct {
	folder string
	may    []string
}

const (
	api     = "api"
	errdefs = "errdefs"
	sys     = "internal/sys/..."
	engine  = "internal/engine"
)

// layers is the table. The first row that matches a folder counts, so the narrow ones come first.
func layers() []layer {
	return []layer{
		{"errdefs", nil},
		{"api", []string{errdefs}},
		{"internal/sys/...", nil},
		{"internal/guest/proto", nil},
		{"internal/guest/link", nil},
		{"internal/guest/tunnel", nil},
		{"internal/guest/client", []string{"internal/guest/proto", "internal/guest/tunnel", errdefs, sys}},
		{"internal/guest/agent/...", []string{"internal/guest/agent/...", "internal/guest/proto", "internal/guest/link", "internal/guest/tunnel", sys}},
		{"internal/engine/...", []string{"internal/engine/...", errdefs, sys, "internal/guest/link"}},
		{"internal/image/...", []string{"internal/image/...", api, errdefs, sys}},
		{"internal/network", []string{api, errdefs}},
		{"internal/network/audit", []string{api, errdefs, sys}},
		{"internal/network/publish", []string{api, errdefs}},
		{"internal/network/secret", []string{api, errdefs}},
		{"internal/network/control", []string{"internal/network/secret", api, errdefs}},
		{"internal/network/authority", nil},
		{"internal/network/gateway/...", []string{
			"internal/network/gateway/...", "internal/network", "internal/network/authority", "internal/network/control", "internal/network/secret", api, errdefs, sys,
		}},
		{"internal/store", []string{api, errdefs, sys}},
		{"internal/supervisor/rpc", []string{api, errdefs, sys}},
		{"internal/supervisor/relay", []string{
			"internal/supervisor/rpc", "internal/guest/client", "internal/guest/proto", api, errdefs, sys,
		}},
		{"internal/supervisor/uplink", []string{"internal/network/authority", "internal/network/control", "internal/network/secret", api, errdefs, sys}},
		{"internal/supervisor/idle", nil},
		{"internal/supervisor/inherit", []string{"internal/supervisor/rpc", errdefs}},
		{"internal/supervisor/keyring", []string{"internal/network/secret", api, errdefs}},
		{"internal/supervisor/diagnose", []string{errdefs, sys}},
		{"internal/supervisor/lifespan", []string{"internal/store", api, errdefs, sys}},
		{"internal/supervisor", []string{
			"internal/supervisor/diagnose", "internal/supervisor/idle", "internal/supervisor/inherit", "internal/supervisor/keyring", "internal/supervisor/lifespan", "internal/supervisor/relay", "internal/supervisor/rpc", "internal/supervisor/uplink", engine, "internal/network", "internal/network/audit", "internal/network/control", "internal/network/publish", "internal/guest/client",
			"internal/guest/proto", "internal/store", api, errdefs, sys,
		}},
		{"internal/budget", []string{errdefs, sys}},
		{"internal/lifecycle/view", []string{engine, "internal/store", api}},
		{"internal/lifecycle", []string{
			"internal/budget", "internal/lifecycle/view",
			engine, "internal/image", "internal/image/bootfile", "internal/network", "internal/network/audit", "internal/network/control", "internal/network/publish", "internal/network/secret", "internal/store", "internal/supervisor/rpc", api, errdefs, sys,
		}},
		{"internal/bench/peer", []string{
			"internal/supervisor/uplink", "internal/network", "internal/network/control", "internal/network/gateway/wire", api, errdefs, sys,
		}},
		{"internal/bench/contest", []string{"internal/bench/figure", "internal/bench/peer", "internal/network/control", api, errdefs}},
		{"internal/bench/raw", []string{
			"internal/bench/bare", "internal/bench/figure", engine, "internal/image", "internal/guest/client", "internal/guest/link", "internal/guest/proto", "internal/network/control", api, errdefs, sys,
		}},
		{"internal/bench/bare", []string{engine, "internal/image", "internal/network/control", api, errdefs, sys}},
		{"internal/bench/figure", []string{api, errdefs}},
		{"internal/bench/sdk", []string{"", "internal/bench/figure", api, errdefs}},
		{"internal/bench/...", []string{
			"internal/bench/...", "internal/guest/proto",
			"internal/lifecycle", engine, "internal/network", "internal/network/authority", "internal/network/control", "internal/image", "internal/image/ext4", "internal/guest/client", "internal/guest/link",
			api, errdefs, sys,
		}},
		{"internal/cli/...", []string{"internal/cli/...", "internal/lifecycle", api, errdefs, sys}},
		{"internal/server/web", []string{api, errdefs}},
		{"internal/server/gate", []string{"internal/server/web", api, errdefs, sys}},
		{"internal/server/hostpath", []string{errdefs}},
		{"internal/server/listen", []string{errdefs, sys}},
		{"internal/server/...", []string{"internal/server/...", "internal/lifecycle", api, errdefs, sys}},
		{"internal/mcp", []string{"internal/lifecycle", api, errdefs, sys}},
		{"internal/doctor", []string{"internal/lifecycle", api, errdefs, sys}},
		{"internal/prune", []string{"internal/lifecycle", "internal/image", "internal/image/bootfile", api, errdefs, sys}},
		{"internal/wire", []string{"internal/engine/...", "internal/image/...", api, errdefs, sys}},
		{"internal/archtest", nil},
		{"internal/need", nil},
		{"cmd/smolvm-guest", []string{"internal/guest/agent"}},
		{"cmd/smolvm/...", []string{
			"internal/cli/...", "internal/server/...", "internal/mcp", "internal/doctor", "internal/bench", "internal/supervisor",
			"internal/network/control", "internal/network/gateway/process", "internal/wire", "internal/lifecycle", "internal/budget", "internal/image", "internal/image/bootfile", "internal/prune",
			"cmd/smolvm/...",
			api, errdefs, sys,
		}},
		{"test/lab/...", []string{"internal/guest/link", api, errdefs, sys}},
		{"test/...", []string{"", api, errdefs, sys}},
		{"", []string{api, errdefs}},
	}
}

func rowOf(folder string) (layer, bool) {
	for _, l := range layers() {
		if within(folder, l.folder) {
			return l, true
		}
	}
	return layer{}, false
}

// TestImports proves that arrows go down only. Tests may look up: a package's test may boot what is above it.
func TestImports(t *testing.T) {
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		row, ok := rowOf(f.dir)
		if !ok {
			t.Errorf("%s: the folder is not in the table; give it a row here and in docs/architecture.md", f.name)
			continue
		}
		for _, imported := range f.ours() {
			if !slices.ContainsFunc(row.may, func(p string) bool { return within(imported, p) }) {
				t.Errorf("%s imports %s; %q may import only %v", f.name, imported, row.folder, row.may)
			}
		}
	}
}

// TestNetworkStack: gVisor's stack promises no stable API and parses what a hostile guest sends, so one place has to do with it.
func TestNetworkStack(t *testing.T) {
	for _, f := range tree(t) {
		for _, i := range f.imports() {
			if strings.HasPrefix(i, "gvisor.dev/gvisor") && !within(f.dir, "internal/network/gateway/...") {
				t.Errorf("%s imports %s; only internal/network/gateway may", f.name, i)
			}
		}
	}
}

// TestWireIsForMainOnly: the list of engines is the program's choice; everything else gets the registry passed in.
func TestWireIsForMainOnly(t *testing.T) {
	for _, f := range tree(t) {
		if slices.Contains(f.ours(), "internal/wire") && !f.test && !within(f.dir, "cmd/smolvm/...") {
			t.Errorf("%s imports internal/wire", f.name)
		}
	}
}

// reach returns everything that folder's code imports of ours, also indirectly, and all it imports of others.
func reach(files []source, folder string) (ours, others []string) {
	todo := []string{folder}
	for len(todo) > 0 {
		dir := todo[0]
		todo = todo[1:]
		for _, f := range files {
			if f.dir != dir || f.test {
				continue
			}
			for _, i := range f.ours() {
				if !slices.Contains(ours, i) {
					ours = append(ours, i)
					todo = append(todo, i)
				}
			}
			for _, i := range f.imports() {
				if !strings.HasPrefix(i, module) && !slices.Contains(others, i) {
					others = append(others, i)
				}
			}
		}
	}
	return ours, others
}

// foreign reports whether an import path is of a third party: the standard library's have no dot in the first element.
func foreign(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".")
}

// TestReach bounds what a package pulls in, directly or not: who embeds it gets no more than this.
func TestReach(t *testing.T) {
	tests := []struct {
		name    string
		folder  string
		ours    []string
		foreign []string // prefixes
	}{
		{"errdefs", "errdefs", nil, nil},
		{"api", "api", []string{errdefs}, nil},
		{"Go SDK", "", []string{api, errdefs}, []string{"github.com/coder/websocket"}}, // no network stack, no image or registry code
		{"protocol", "internal/guest/proto", nil, []string{"connectrpc.com/connect", "google.golang.org/protobuf/"}},
		{"policy", "internal/network", []string{api, errdefs}, []string{"github.com/bmatcuk/doublestar/", "golang.org/x/net/idna"}},
		{"link", "internal/guest/link", nil, []string{"golang.org/x/sys/", "github.com/mdlayher/vsock"}},
		{
			"guest agent", "cmd/smolvm-guest",
			[]string{"internal/guest/agent/...", "internal/guest/proto", "internal/guest/link", "internal/guest/tunnel", sys},
			[]string{"connectrpc.com/connect", "google.golang.org/protobuf/", "golang.org/x/net/http2", "golang.org/x/sys/", "github.com/creack/pty", "github.com/mdlayher/vsock"},
		},
		{"store", "internal/store", []string{api, errdefs, sys}, []string{"golang.org/x/sys/", "github.com/google/renameio/"}},
	}
	files := tree(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, others := reach(files, tt.folder)
			for _, i := range ours {
				if !slices.ContainsFunc(tt.ours, func(p string) bool { return within(i, p) }) {
					t.Errorf("%s reaches our %s", tt.folder, i)
				}
			}
			for _, i := range others {
				if foreign(i) && !slices.ContainsFunc(tt.foreign, func(p string) bool { return strings.HasPrefix(i, p) }) {
					t.Errorf("%s reaches %s", tt.folder, i)
				}
			}
		})
	}
}

// TestEngineNames: nothing above the engines names one of them in code.
func TestEngineNames(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || within(f.dir, "internal/engine/...") || f.dir == "internal/wire" || f.dir == "internal/archtest" {
			continue
		}
		for _, i := range f.ours() {
			if within(i, "internal/engine/...") && i != engine {
				t.Errorf("%s imports the driver %s", f.name, i)
			}
		}
	}
}

// TestUnsafe: what uses unsafe says so in its file name.
func TestUnsafe(t *testing.T) {
	for _, f := range tree(t) {
		if slices.Contains(f.imports(), "unsafe") && !f.machine && !strings.HasSuffix(f.name, "_unsafe.go") {
			t.Errorf("%s imports unsafe; put that into a file named *_unsafe.go", f.name)
		}
		if slices.Contains(f.imports(), "C") {
			t.Errorf("%s uses cgo; everything here is static", f.name)
		}
	}
}
