// Package typed finds the commands that documents show, and runs them as a reader would type them.
//
// Layer: tests only; nothing but tests imports it.
package typed

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Block is a fenced block of shell commands in a document. The comment line before it says what the tests do with it: a mark says who runs it, and a "text"
// block that follows at once is what it must print, where "…" stands for anything; "<!-- not run: reason -->" is only shown.
type Block struct {
	File, Comment, Script, Output string
	Line                          int
}

// The marks of blocks that are run.
const (
	Short  = "<!-- run -->"        // by the VM lane
	Long   = "<!-- run long -->"   // by script/test long
	Egress = "<!-- run egress -->" // by test/egress, where github.com and others are servers of the test's own
)

// Runs reports whether tests run the block.
func (b Block) Runs() bool { return b.Comment == Short || b.Comment == Long || b.Comment == Egress }

// Blocks finds the shell blocks of a document.
func Blocks(file string) ([]Block, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []Block
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
				out = append(out, Block{File: filepath.Base(file), Comment: before, Script: joined, Line: i - len(body)})
				shell = i
			} else if fence == "```text" && len(out) > 0 && i-len(body)-shell <= 3 {
				out[len(out)-1].Output = joined
			}
			fence, before = "", ""
		case fence != "":
			body = append(body, line)
		case strings.TrimSpace(line) != "":
			before = line
		}
	}
	return out, nil
}

// Folder makes dir one to type commands in: it has bin/smolvm, a link to the program.
func Folder(dir, program string) error {
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	return os.Symlink(program, filepath.Join(dir, "bin", "smolvm"))
}

// Run types the block in dir. An error says what went wrong, or what it printed instead.
func (b Block) Run(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.Script)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w\n%s\nstdout: %s\nstderr: %s", err, b.Script, stdout.String(), stderr.String())
	}
	if b.Output != "" && !pattern(b.Output).MatchString(stdout.String()) {
		return fmt.Errorf("it printed\n%s\nthe document says\n%s", stdout.String(), b.Output)
	}
	return nil
}

// pattern makes an expression of a text in which "…" stands for anything.
func pattern(text string) *regexp.Regexp {
	parts := strings.Split(text, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`)
}
