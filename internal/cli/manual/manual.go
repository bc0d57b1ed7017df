// Package manual writes manual pages of the commands, for man(1). They come from the same tree as the help, and depend on
// nothing else: the same program writes the same pages.
//
// Layer: part of the front cli. It may import errdefs.
package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smolvm/smolvm/errdefs"
)

// Command is `man`. Args wants between low and high arguments.
func Command(args func(low, high int) cobra.PositionalArgs) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "man --dir DIR", Short: "Write manual pages of all commands",
		Long:    "Man writes a page for each command into a directory, for man(1) and for packages of SmolVM. It prints their names.",
		Example: "  smolvm man --dir ~/.local/share/man/man1 && man smolvm-run",
		GroupID: "more", Args: args(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&dir, "dir", "", "write them into `DIR`, which is made")
	_ = cmd.MarkFlagDirname("dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if dir == "" {
			return errdefs.Invalid.Errorf("man: --dir is missing").WithRemedy("smolvm man --dir ~/.local/share/man/man1")
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return errdefs.Host.Errorf("man: %w", err)
		}
		for _, p := range Pages(cmd.Root()) {
			name := filepath.Join(dir, p.Name)
			if err := renameio.WriteFile(name, []byte(p.Text), 0o644); err != nil {
				return errdefs.Host.Errorf("man: %w", err)
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), name); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// Page is a file with one command's page.
type Page struct {
	Name string
	Text string
}

// Pages returns the pages of a command and all below it.
func Pages(root *cobra.Command) []Page {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var out []Page
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		out = append(out, Page{dashed(cmd) + ".1", page(cmd)})
		for _, c := range visible(cmd) {
			visit(c)
		}
	}
	visit(root)
	return out
}

func dashed(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// visible are the commands below one that people are shown.
func visible(cmd *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && !c.IsAdditionalHelpTopicCommand() {
			out = append(out, c)
		}
	}
	return out
}

// page writes a page in the macros of man(7).
func page(cmd *cobra.Command) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	fmt.Fprintf(&b, ".TH \"%s\" \"1\" \"\" \"%s\" \"SmolVM\"\n", escape(strings.ToUpper(dashed(cmd))), escape("smolvm "+cmd.Root().Version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(dashed(cmd)), escape(cmd.Short))
	b.WriteString(".SH SYNOPSIS\n")
	for i, use := range strings.Split(cmd.UseLine(), " | ") {
		if i > 0 {
			b.WriteString(".br\n")
			use = strings.TrimSpace(cmd.Parent().CommandPath() + " " + use)
		}
		path := cmd.CommandPath()
		fmt.Fprintf(&b, "\\fB%s\\fR%s\n", escape(path), escape(strings.TrimPrefix(use, path)))
	}
	b.WriteString(".SH DESCRIPTION\n")
	if cmd.Long != "" {
		paragraphs(&b, cmd.Long)
	} else {
		paragraphs(&b, cmd.Short+".")
	}
	if below := visible(cmd); len(below) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, c := range below {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR(1)\n%s\n", escape(dashed(c)), escape(c.Short))
		}
	}
	flags(&b, "OPTIONS", cmd.NonInheritedFlags())
	flags(&b, "GLOBAL OPTIONS", cmd.InheritedFlags())
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		verbatim(&b, strings.Split(cmd.Example, "\n"))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n\\fB%s\\fR(1)\n", escape(dashed(cmd.Parent())))
	}
	return b.String()
}

func flags(b *strings.Builder, title string, set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
		}
		fmt.Fprintf(b, "\\fB%s\\fR", escape("--"+f.Name))
		if value != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", escape(value))
		}
		b.WriteString("\n" + escape(usage) + "\n")
	})
}

// paragraphs writes help text: empty lines part paragraphs, lines that begin with a space stay as they are.
func paragraphs(b *strings.Builder, text string) {
	var shown []string
	flush := func() {
		if len(shown) > 0 {
			verbatim(b, shown)
			shown = nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case strings.HasPrefix(line, " "):
			shown = append(shown, line)
		case strings.TrimSpace(line) == "":
			flush()
			b.WriteString(".PP\n")
		default:
			flush()
			b.WriteString(escape(line) + "\n")
		}
	}
	flush()
}

func verbatim(b *strings.Builder, lines []string) {
	b.WriteString(".PP\n.nf\n.RS 4\n")
	for _, line := range lines {
		b.WriteString(escape(strings.TrimPrefix(line, "  ")) + "\n")
	}
	b.WriteString(".RE\n.fi\n")
}

// escape makes a line of text what roff prints as it is.
func escape(line string) string {
	line = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, `"`, `\(dq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`, "\n", " ").Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}
