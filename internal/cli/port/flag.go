package port

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
)

// Flag is -p: the ports that a VM publishes.
type Flag []api.Port

// Add adds it to a command.
func (p *Flag) Add(cmd *cobra.Command) {
	cmd.Flags().VarP(p, "publish", "p", "publish a TCP port of the VM on this host: HOST:GUEST, GUEST (any free port), or ADDRESS:HOST:GUEST")
	_ = cmd.RegisterFlagCompletionFunc("publish", cobra.NoFileCompletions)
}

// String implements pflag.Value.
func (p *Flag) String() string {
	var texts []string
	for _, port := range *p {
		texts = append(texts, port.String())
	}
	return strings.Join(texts, ",")
}

// Type implements pflag.Value.
func (*Flag) Type() string { return "PORT" }

// Set implements pflag.Value.
func (p *Flag) Set(text string) error {
	port, err := api.ParsePort(text)
	if err == nil {
		*p = append(*p, port)
	}
	return err
}
