package manual

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/internal/need"
)

func tree() *cobra.Command {
	root := &cobra.Command{Use: "vm", Short: "Do things", Version: "v1", Run: func(*cobra.Command, []string) {}}
	root.PersistentFlags().BoolP("verbose", "v", false, "say more")
	run := &cobra.Command{
		Use: "run-it [flags] -- COMMAND | run-it ID", Short: "Run it", Example: "  vm run-it -c 'a\\nb' <in\n  .hidden", Run: root.Run,
		Long: "It runs *.x and \"y\".\n.begins with a dot\n'and with a quote\n\nMore:\n  a  b\n  c  d\nThe end.",
	}
	run.Flags().StringP("shell", "c", "", "run this `TEXT`")
	run.Flags().String("secret", "", "nobody sees this")
	_ = run.Flags().MarkHidden("secret")
	root.AddCommand(run, &cobra.Command{Use: "internal", Hidden: true, Run: root.Run})
	return root
}

func TestPages(t *testing.T) {
	pages := map[string]string{}
	for _, p := range Pages(tree()) {
		pages[p.Name] = p.Text
	}
	for _, want := range []string{
		".TH \"VM\\-RUN\\-IT\" \"1\" \"\" \"smolvm v1\"", "vm\\-run\\-it \\- Run it\n", "\\fBvm run\\-it\\fR [flags] \\-\\- COMMAND\n.br\n\\fBvm run\\-it\\fR ID\n",
		"*.x and \\(dqy\\(dq.\n\\&.begins", "\\(aqand with", "\\fB\\-c\\fR, \\fB\\-\\-shell\\fR \\fITEXT\\fR\nrun this TEXT\n", "GLOBAL OPTIONS\n.TP\n\\fB\\-v\\fR",
		"vm run\\-it \\-c \\(aqa\\enb\\(aq <in\n\\&.hidden\n", ".nf\n.RS 4\na  b\nc  d\n.RE\n.fi\nThe end.\n", "\\fBvm\\fR(1)\n",
	} {
		if !strings.Contains(pages["vm-run-it.1"], want) {
			t.Errorf("no %q in\n%s", want, pages["vm-run-it.1"])
		}
	}
	for _, not := range []string{"secret", "internal"} {
		if strings.Contains(pages["vm-run-it.1"]+pages["vm.1"], not) {
			t.Errorf("%s is told", not)
		}
	}
	if pages["vm-internal.1"] != "" || pages["vm-completion-bash.1"] == "" || !strings.Contains(pages["vm.1"], "\\fBvm\\-run\\-it\\fR(1)\nRun it\n") {
		t.Errorf("%v", pages["vm.1"])
	}
	again := Pages(tree())
	for _, p := range again {
		if pages[p.Name] != p.Text {
			t.Errorf("%s is another one the second time", p.Name)
		}
	}
}

// TestRenders: man has nothing to complain about.
func TestRenders(t *testing.T) {
	groff := need.Tool(t, "groff", "apt-get install groff-base")
	for _, p := range Pages(tree()) {
		cmd := exec.CommandContext(t.Context(), groff, "-ww", "-man", "-Tutf8", "-z") //nolint:gosec // found in PATH
		cmd.Stdin = strings.NewReader(p.Text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v, %s", p.Name, err, out)
		}
	}
}
