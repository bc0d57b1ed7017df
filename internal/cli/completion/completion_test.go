package completion

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/internal/need"
)

// TestBash: without bash-completion, bash's words are put together as people see them.
func TestBash(t *testing.T) {
	bash := need.Tool(t, "bash", "apt-get install bash")
	root := &cobra.Command{Use: "smolvm", Run: func(*cobra.Command, []string) {}}
	root.AddCommand(&cobra.Command{Use: "ls", Run: root.Run})
	Mend(root)
	var script bytes.Buffer
	root.SetOut(&script)
	root.SetArgs([]string{"completion", "bash"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, line, words, want string }{
		{"the beginning of a command", "smolvm st", "smolvm st", "<smolvm><st> 1 <st> <smolvm>"},
		{"after a space", "smolvm ls ", "smolvm ls ''", "<smolvm><ls><> 2 <> <ls>"},
		{"a flag with =", "smolvm ls --format={{.I", "smolvm ls --format = {{.I", "<smolvm><ls><--format={{.I> 2 <--format={{.I> <ls>"},
		{"nothing behind =", "smolvm ls --format=", "smolvm ls --format =", "<smolvm><ls><--format=> 2 <--format=> <ls>"},
		{"a colon", "smolvm cp web:/etc/h", "smolvm cp web : /etc/h", "<smolvm><cp><web:/etc/h> 2 <web:/etc/h> <cp>"},
		{"many spaces", "smolvm   ls  a", "smolvm ls a", "<smolvm><ls><a> 2 <a> <ls>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), bash, "--norc", "--noprofile", "-c", //nolint:gosec // found in PATH
				script.String()+"\nCOMP_LINE='"+tt.line+"'; COMP_WORDS=("+tt.words+"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_POINT=${#COMP_LINE}\n"+
					`__smolvm_init_completion -n =: && printf '<%s>' "${words[@]}" && echo " $cword <$cur> <$prev>"`)
			out, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != tt.want {
				t.Errorf("%s (%v), want %s", out, err, tt.want)
			}
		})
	}
}
