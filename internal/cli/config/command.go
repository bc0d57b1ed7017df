package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
)

// Env is what the commands need of the program.
type Env struct {
	Getenv func(string) string
	// Check refuses what the program itself could not work with.
	Check func(f File) error
	Args  func(low, high int) cobra.PositionalArgs
	Group cobra.PositionalArgs // of a command that only has others below it
}

// Setting is a key with its value in force.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // built-in, a variable, or a file with its line
}

// Command is `config` with all below it.
func (e Env) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show and check the file of defaults",
		Long: `Config is about the file with defaults for flags of run and create, and for environment variables. A flag wins over a
variable, that over the file, and that over what is built in. docs/config.md tells what may stand in it.`,
		Example: "  smolvm config show\n  $EDITOR $(smolvm config path) && smolvm config validate", GroupID: "more",
		Args: e.Group, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(e.show(), e.path(), e.validate())
	return cmd
}

func (e Env) show() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show what holds, and where it comes from",
		Example:           "  smolvm config show\n  smolvm config show --format '{{.Name}}={{.Value}}'",
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	out := format.Add(cmd, "print it as JSON", Setting{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := Load(e.Getenv)
		if err != nil {
			return err
		}
		all := f.Settings(e.Getenv)
		return out.Print(cmd.OutOrStdout(), all, func() error {
			t := show.Table(cmd.OutOrStdout(), "NAME", "VALUE", "ORIGIN")
			for _, s := range all {
				show.Row(t, s.Name, s.Value, s.Origin)
			}
			return t.Flush()
		})
	}
	return cmd
}

// Settings are all keys, with what holds before flags are given.
func (f File) Settings(getenv func(string) string) []Setting {
	var all []Setting
	for _, k := range keys() {
		s := Setting{Name: k.name, Value: k.builtIn, Origin: "built-in"}
		if i := slices.IndexFunc(f.entries, func(e entry) bool { return e.name == k.name }); i >= 0 {
			e := f.entries[i]
			s.Value, s.Origin = strings.Join(e.values, ", "), place(f.Name, e.line)
			if k.kind == variables { // they may be secret
				s.Value = ""
				for _, v := range e.values {
					name, _, _ := strings.Cut(v, "=")
					s.Value += name + "=*** "
				}
				s.Value = strings.TrimSpace(s.Value)
			}
		}
		if k.env != "" && getenv(k.env) != "" {
			s.Value, s.Origin = getenv(k.env), "$"+k.env
		}
		all = append(all, s)
	}
	return all
}

func (e Env) path() *cobra.Command {
	return &cobra.Command{
		Use: "path", Short: "Print where the file is, whether or not there is one",
		Example:           "  smolvm config path",
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, _, err := Path(e.Getenv)
			if err == nil && name == "" {
				err = errdefs.Host.Errorf("neither HOME nor XDG_CONFIG_HOME is set").WithRemedy("export %s=/some/file", Variable)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
			return err
		},
	}
}

func (e Env) validate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "validate [FILE]", Short: "Check the file, or another one",
		Long:    "Validate reads the file, and tries its values as run and create would. It says nothing where nothing is wrong.",
		Example: "  smolvm config validate\n  smolvm config validate new.yaml",
		Args:    e.Args(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := Load(e.Getenv)
			if len(args) == 1 {
				f, err = readFile(args[0])
			}
			if err != nil {
				return err
			}
			return e.Check(f)
		},
	}
	return cmd
}

func readFile(name string) (File, error) {
	in, err := os.Open(name)
	if err != nil {
		return File{}, errdefs.Invalid.Errorf("configuration: %w", err)
	}
	defer func() { _ = in.Close() }()
	return Read(in, name)
}
