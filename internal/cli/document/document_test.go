package document

import (
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	tests := []struct{ name, text, says string }{
		{"usual", "a: [b, {c: d}]\n# a comment\nlist:\n  - - x\n", ""},
		{"many that are closed", strings.Repeat("a: [b]\n", 100), ""},
		{"too large", strings.Repeat("x", 2000), "more than 1000 bytes"},
		{"brackets", "\n" + strings.Repeat("[", 100), "line 2: it is nested deeper"},
		{"brackets that are closed", strings.Repeat("[", 100) + strings.Repeat("]", 100), "deeper"},
		{"brackets on lines of their own", strings.Repeat("{a:\n", 100), "line 65"},
		{"lists", strings.Repeat("- ", 100), "deeper"},
		{"keys", "  " + strings.Repeat("? ", 100), "deeper"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Read(strings.NewReader(tt.text), 1000)
			if tt.says == "" && (err != nil || string(b) != tt.text) || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}
