// Package completion makes the completion of bash work where the package bash-completion is not installed.
//
// Layer: part of the front cli. It imports none of ours.
package completion

import (
	"fmt"

	"github.com/spf13/cobra"
)

// words replaces a function of the script that cobra writes. Cobra's needs bash-completion, which small installations do not
// have, and complains at each key without it.
const words = `
# Bash parts words at = and : too. Where the package bash-completion is there, it puts them together.
__%[1]s_init_completion()
{
    COMPREPLY=()
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    local rest=$COMP_LINE word i n=-1
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $n -lt 0 || $rest == [[:space:]]* ]]; then
            n=$((n + 1))
            words[n]=$word
        else
            words[n]+=$word
        fi
        rest=${rest#"${rest%%%%[![:space:]]*}"}
        rest=${rest#"$word"}
    done
    cword=$n
    cur=${words[n]}
    prev=
    ((n == 0)) || prev=${words[n - 1]}
}
`

// Mend changes what "completion bash" writes. It adds the command to root, if it is not there.
func Mend(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil || bash.RunE == nil {
		return
	}
	write := bash.RunE
	bash.RunE = func(cmd *cobra.Command, args []string) error {
		if err := write(cmd, args); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), words, root.Name())
		return err
	}
}
