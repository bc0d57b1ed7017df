package vm

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/test/typed"
)

// documents returns the Markdown files that users read.
func documents(t *testing.T) []string {
	t.Helper()
	top := filepath.Join("..", "..")
	var out []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, names...)
	}
	if len(out) < 3 {
		t.Fatalf("only %v below %s", out, top)
	}
	return out
}

// blocks finds the shell blocks of a document.
func blocks(t *testing.T, file string) []typed.Block {
	t.Helper()
	out, err := typed.Blocks(file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDocsAreMarked: every command shown to users is tested, or says why not.
func TestDocsAreMarked(t *testing.T) {
	runs := 0
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			switch {
			case b.Comment == typed.Egress && b.File != "https.md":
				t.Errorf("%s:%d: test/egress runs blocks of https.md alone", b.File, b.Line)
			case b.Runs():
				runs++
			case strings.HasPrefix(b.Comment, "<!-- not run: "):
			default:
				t.Errorf("%s:%d: the shell block is neither marked to be run nor says why not", b.File, b.Line)
			}
		}
	}
	if runs == 0 {
		t.Error("no block is run")
	}
}

// TestDocsLinks: what the documents point to in this repository exists.
func TestDocsLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#: ]+)(#[^)]*)?\)`)
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", filepath.Base(file), m[1], err)
			}
		}
	}
}

// TestChangelog: it has the form of Keep a Changelog.
func TestChangelog(t *testing.T) {
	for _, file := range documents(t) {
		if filepath.Base(file) != "CHANGELOG.md" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		heading := regexp.MustCompile(`^## \[(Unreleased|\d+\.\d+\.\d+)\]( - \d{4}-\d\d-\d\d)?$|^### (Added|Changed|Deprecated|Removed|Fixed|Security)$|^# Changelog$`)
		for i, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "#") && !heading.MatchString(line) {
				t.Errorf("line %d is no heading of a changelog: %q", i+1, line)
			}
		}
		if !strings.Contains(string(text), "\n## [Unreleased]\n") {
			t.Error("no Unreleased section")
		}
		return
	}
	t.Error("there is no CHANGELOG.md")
}

// TestVMDocs runs the commands of the documents as a reader would type them, from the top of a tree that is built.
func TestVMDocs(t *testing.T) { typeAll(t, typed.Short) }

// TestVMLongDocs runs those that take minutes.
func TestVMLongDocs(t *testing.T) { typeAll(t, typed.Long) }

// typeAll runs the blocks with a mark.
func typeAll(t *testing.T, mark string) {
	c := program(t)
	for _, file := range documents(t) {
		dir := t.TempDir()
		if err := typed.Folder(dir, c.bin); err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(t, file) {
			if b.Comment != mark {
				continue
			}
			t.Run(b.File+":"+itoa(b.Line), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				if err := b.Run(ctx, dir); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
