package vm

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is a fenced block of shell commands in a document. The comment line before it says what the tests do with it:
// "<!-- run -->" runs it in a VM-capable lane, "<!-- run long -->" in script/test long, and a "text" block that follows at once is what it must print, where "…"
// stands for anything; "<!-- not run: reason -->" is only shown.
type block struct {
	file, comment, script, output string
	line                          int
}

// The marks of blocks that are run.
const (
	runShort = "<!-- run -->"
	runLong  = "<!-- run long -->"
)

func (b block) runs() bool { return b.comment == runShort || b.comment == runLong }

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
func blocks(t *testing.T, file string) []block {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	var before, fence string
	var body []string
	shell := -2 // the line where the last shell block ended
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case fence == "" && strings.HasPrefix(line, "```"):
			fence, body = line, nil
		case line == "```":
			joined := strings.Join(body, "\n") + "\n"
			if fence == "```sh" {
				out = append(out, block{file: filepath.Base(file), comment: before, script: joined, line: i - len(body)})
				shell = i
			} else if fence == "```text" && len(out) > 0 && i-len(body)-shell <= 3 {
				out[len(out)-1].output = joined
			}
			fence, before = "", ""
		case fence != "":
			body = append(body, line)
		case strings.TrimSpace(line) != "":
			before = line
		}
	}
	return out
}

// TestDocsAreMarked: every command shown to users is tested, or says why not.
func TestDocsAreMarked(t *testing.T) {
	runs := 0
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			switch {
			case b.runs():
				runs++
			case strings.HasPrefix(b.comment, "<!-- not run: "):
			default:
				t.Errorf("%s:%d: the shell block is neither marked to be run nor says why not", b.file, b.line)
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
func TestVMDocs(t *testing.T) { typed(t, runShort) }

// TestVMLongDocs runs those that take minutes.
func TestVMLongDocs(t *testing.T) { typed(t, runLong) }

// typed runs the blocks with a mark.
func typed(t *testing.T, mark string) {
	c := program(t)
	for _, file := range documents(t) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(c.bin, filepath.Join(dir, "bin", "smolvm")); err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(t, file) {
			if b.comment != mark {
				continue
			}
			t.Run(b.file+":"+itoa(b.line), func(t *testing.T) { b.run(t, dir) })
		}
	}
}

func (b block) run(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.script)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\nstdout: %s\nstderr: %s", err, b.script, stdout.String(), stderr.String())
	}
	if b.output != "" && !pattern(b.output).MatchString(stdout.String()) {
		t.Errorf("it printed\n%s\nthe document says\n%s", stdout.String(), b.output)
	}
}

// pattern makes an expression of a text in which "…" stands for anything.
func pattern(text string) *regexp.Regexp {
	parts := strings.Split(text, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`)
}
