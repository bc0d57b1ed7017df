package tail

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestBufferIsBounded(t *testing.T) {
	var b Buffer
	for i := range 10000 {
		_, _ = fmt.Fprintf(&b, "line %d\n", i)
	}
	if n := len(b.Bytes()); n != Max {
		t.Errorf("%d bytes are kept", n)
	}
	if got := b.Lines(2); got != "line 9998\nline 9999" {
		t.Errorf("Lines = %q", got)
	}
	if n, err := b.Write(bytes.Repeat([]byte("x"), 3*Max)); n != 3*Max || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if got := b.Bytes(); string(got) != strings.Repeat("x", Max) {
		t.Errorf("%d bytes are kept", len(got))
	}
}

func TestLinesAreClean(t *testing.T) {
	var b Buffer
	_, _ = b.Write([]byte("a\x1b[31mred\r\n\n \nb\tc\x00\xff\n"))
	if got := b.Lines(9); got != "a[31mred\nb c" {
		t.Errorf("Lines = %q", got)
	}
}
