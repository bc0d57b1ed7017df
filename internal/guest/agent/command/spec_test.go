package command

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func write(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	acc := accounts{
		passwd: write(t, dir, "passwd", "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken\nann:x:1000:1000::/home/ann:\n", 0o600),
		group:  write(t, dir, "group", "root:x:0:\nann:x:1000:\naudio:x:29:bob,ann\nsudo:x:27:annika\nvideo:x:44:ann\n", 0o600),
	}
	ann := user{name: "ann", uid: 1000, gid: 1000, home: "/home/ann", shell: "/bin/sh", groups: []uint32{1000, 29, 44}}
	tests := []struct {
		spec string
		want user
		ok   bool
	}{
		{"", user{name: "root", home: "/root", shell: "/bin/bash", groups: []uint32{0}}, true},
		{"ann", ann, true},
		{"1000", ann, true},
		{"1000:7", user{name: "ann", uid: 1000, gid: 7, home: "/home/ann", shell: "/bin/sh", groups: []uint32{7}}, true},
		{"77", user{name: "77", uid: 77, gid: 77, home: "/", shell: "/bin/sh", groups: []uint32{77}}, true},
		{"nobody-here", user{}, false},
		{"ann:staff", user{}, false},
		{"4294967295", user{}, false},
		{"-1", user{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			got, err := acc.lookup(tt.spec)
			if (err == nil) != tt.ok || (tt.ok && !reflect.DeepEqual(got, tt.want)) {
				t.Errorf("lookup = %+v, %v", got, err)
			}
		})
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	run := write(t, dir, "run", "", 0o755)
	write(t, dir, "plain", "", 0o644)
	tests := []struct {
		name, dir, path, want string
		code                  int
	}{
		{name: "run", path: "/nowhere:" + dir, want: run},
		{name: "run", dir: dir, path: ".", want: run},
		{name: "plain", path: dir, code: 126},
		{name: "none", path: dir, code: 127},
		{name: "", path: dir, code: 127},
		{name: "./anything", path: dir, want: "./anything"},
	}
	for _, tt := range tests {
		t.Run(tt.name+" in "+tt.path, func(t *testing.T) {
			got, err := lookPath(tt.name, tt.dir, tt.path)
			code := 0
			if serr, ok := errors.AsType[*StartError](err); ok {
				code = serr.Code
			}
			if got != tt.want || code != tt.code {
				t.Errorf("lookPath = %q, %v", got, err)
			}
		})
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "file", "", 0o600)
	tests := []struct {
		name, own, vm, home, want string
		ok                        bool
	}{
		{"own first", dir, "/no/such", "/", dir, true},
		{"then the machine's", "", dir, "/", dir, true},
		{"then home", "", "", dir, dir, true},
		{"a missing home is the root", "", "", "/no/such", "/", true},
		{"missing", "/no/such", "", dir, "", false},
		{"a file", file, "", dir, "", false},
		{"relative", "x", "", dir, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := directory(tt.own, tt.vm, tt.home)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("directory = %q, %v", got, err)
			}
		})
	}
}
