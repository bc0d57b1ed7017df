// Package stream holds the ends of a guest's command's output.
//
// Layer: part of the front cli. It imports none of ours.
package stream

import (
	"encoding/base64"
	"errors"
	"io"
	"syscall"
	"unicode/utf8"
)

// maxCapture bounds each stream that is collected.
const maxCapture = 16 << 20

// Output is what --json prints of a command's output.
type Output struct {
	Stdout       string `json:"stdout"`
	StdoutBase64 string `json:"stdout_base64,omitempty"` // instead, where it is no UTF-8
	Stderr       string `json:"stderr"`
	StderrBase64 string `json:"stderr_base64,omitempty"`
	Truncated    bool   `json:"truncated,omitempty"`
}

// Collect returns what two captures kept.
func Collect(stdout, stderr *Capture) Output {
	o := Output{Truncated: stdout.lost || stderr.lost}
	o.Stdout, o.StdoutBase64 = stdout.text()
	o.Stderr, o.StderrBase64 = stderr.text()
	return o
}

// Capture keeps the beginning of what is written to it.
type Capture struct {
	kept []byte
	lost bool
}

// Write implements io.Writer.
func (c *Capture) Write(p []byte) (int, error) {
	n := min(len(p), maxCapture-len(c.kept))
	c.kept = append(c.kept, p[:n]...)
	c.lost = c.lost || n < len(p)
	return len(p), nil
}

func (c *Capture) text() (text, encoded string) {
	if utf8.Valid(c.kept) {
		return string(c.kept), ""
	}
	return "", base64.StdEncoding.EncodeToString(c.kept)
}

// Pipe tells when nobody reads what is written any more.
type Pipe struct {
	W      io.Writer
	Broken func()
}

// Write implements io.Writer.
func (p *Pipe) Write(b []byte) (int, error) {
	n, err := p.W.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		p.Broken()
	}
	return n, err
}
