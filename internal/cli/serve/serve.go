// Package serve holds the commands that answer the HTTP API and show its token.
//
// Layer: part of the front cli. It may import api, errdefs, internal/sys.
package serve

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/token"
)

// Options say where to answer.
type Options struct {
	Socket        string // path of a unix socket; "" = the default one, unless Listen
	Listen        string // ADDRESS:PORT
	TLSCert       string
	TLSKey        string
	AllowPaths    []string // directories of this host in which requests over TCP may name files
	LogRequests   bool
	ExitWithStdin bool // end when standard input does
}

// Env is what the commands need of the program.
type Env struct {
	Serve  func(ctx context.Context, o Options) error
	Home   func() (string, error)
	Stdout io.Writer
	Args   func(low, high int) cobra.PositionalArgs
}

// Commands returns them.
func (e Env) Commands() []*cobra.Command { return []*cobra.Command{e.serve(), e.token()} }

func (e Env) serve() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Answer the HTTP API",
		Long: `Serve answers the HTTP API: on a unix socket that only our own user may connect to, $SMOLVM_HOME/serve/serve.sock, or over
TCP for those who have the token that "smolvm token" shows. TCP needs TLS unless the address is of this host alone. Once it
answers, it prints one line of JSON that tells where. It holds no state: it may end at any time, and several may run.`,
		Example: `  smolvm serve
  smolvm serve --socket /run/user/1000/smolvm.sock
  smolvm serve --listen 127.0.0.1:8010`,
		GroupID:           "more",
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.Socket, "socket", "", "`PATH` of the unix socket")
	f.StringVar(&o.Listen, "listen", "", "`ADDRESS:PORT` to answer at, for who shows the token")
	f.StringVar(&o.TLSCert, "tls-cert", "", "`FILE` with the certificate, PEM")
	f.StringVar(&o.TLSKey, "tls-key", "", "`FILE` with its key, PEM")
	f.StringArrayVar(&o.AllowPaths, "allow-path", nil, "`DIR` of this host in which requests over TCP may name kernels and root file systems")
	f.BoolVar(&o.LogRequests, "log-requests", false, "log each request to stderr")
	f.BoolVar(&o.ExitWithStdin, "exit-with-stdin", false, "end when standard input does")
	_ = cmd.RegisterFlagCompletionFunc("listen", cobra.FixedCompletions([]string{"127.0.0.1:8010", "[::1]:8010"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("allow-path")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Listen == "" && (o.TLSCert != "" || o.TLSKey != "" || len(o.AllowPaths) > 0) {
			return errdefs.Invalid.Errorf("serve: --tls-cert, --tls-key and --allow-path are for --listen").WithRemedy("smolvm serve --listen ADDRESS:PORT")
		}
		return e.Serve(cmd.Context(), o)
	}
	return cmd
}

func (e Env) token() *cobra.Command {
	rotate := false
	cmd := &cobra.Command{
		Use:   "token [flags]",
		Short: "Show the token for the HTTP API over TCP",
		Long: `Token shows what a client of "smolvm serve --listen" sends as "Authorization: Bearer TOKEN". It is made when it is first
needed and lies in $SMOLVM_HOME/serve/token, which only we may read. Who has it may do with all our VMs what we may.`,
		Example:           "  smolvm token\n  smolvm token --rotate",
		GroupID:           "more",
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make another one; the old one is refused from then on")
	cmd.RunE = func(*cobra.Command, []string) error {
		home, err := e.Home()
		if err != nil {
			return err
		}
		get := token.Ensure
		if rotate {
			get = token.Rotate
		}
		t, err := get(token.Path(home))
		if err != nil {
			return errdefs.Host.Errorf("token: %w", err).WithRemedy("smolvm token --rotate")
		}
		_, err = fmt.Fprintln(e.Stdout, t)
		return err
	}
	return cmd
}
