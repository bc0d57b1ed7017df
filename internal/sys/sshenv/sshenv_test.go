package sshenv

import (
	"strings"
	"testing"
)

func TestSnippet(t *testing.T) {
	const head = "# Written by smolvm: the environment of the VM's commands."
	tests := []struct{ name, env, want string }{
		{"nothing", "", head},
		{"what a session knows", "HOME=/root\x00TERM=x\x00PWD=/\x00", head},
		{"values", "B=two words\x00A=1\x00E=\x00", head + ` SetEnv "A=1" "B=two words" "E="`},
		{"quotes", `A=say "hi" \n #x $y`, head + ` SetEnv "A=say \"hi\" \\n #x $y"`},
		{"line ends", "A=1\nPermitRootLogin yes\x00B=2\rX\x00C=3", head + ` SetEnv "C=3"`},
		{"odd names", "A\"B=1\x00#C=1\x00A B=1", head},
		{"too much", "A=1\x00B=" + strings.Repeat("x", maxSnippet), head + ` SetEnv "A=1"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.ReplaceAll(Snippet(strings.Split(tt.env, "\x00")), "\n", " "); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
