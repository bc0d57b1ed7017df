package network

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/har"
	"github.com/smolvm/smolvm/internal/cli/show"
)

// VMs is what the commands need of lifecycle.Manager.
type VMs interface {
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	SetNetwork(ctx context.Context, id string, p api.NetworkPolicy) error
	NetworkLog(ctx context.Context, id string, follow bool, each func(api.NetRecord) error) error
	NetworkStats(ctx context.Context, id string) (api.NetStats, error)
}

// Front is what the commands need of the program.
type Front struct {
	Open   func() (VMs, error)
	Args   func(low, high int) cobra.PositionalArgs
	Group  cobra.PositionalArgs // of a command that only has others below it
	IDs    cobra.CompletionFunc
	Stdout io.Writer
	// Version is the program's, which an archive of requests names.
	Version string
}

// Command is `net` with all below it.
func Command(f Front) *cobra.Command {
	cmd := &cobra.Command{
		Use: "net", Short: "Show and change what a VM may reach, and what it did",
		Example: "  smolvm net show web\n  smolvm net set web --net none", GroupID: "vm",
		Args: f.Group, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(f.set(), f.show(), f.log(), f.stats())
	return cmd
}

// one makes a command about one VM.
func (f Front) one(cmd *cobra.Command, do func(cmd *cobra.Command, id string) error) *cobra.Command {
	cmd.Args, cmd.ValidArgsFunction = f.Args(1, 1), f.IDs
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if err := api.ValidateID(ids[0]); err != nil {
			return err
		}
		return do(cmd, ids[0])
	}
	return cmd
}

func (f Front) set() *cobra.Command {
	var flags Flags
	cmd := f.one(&cobra.Command{
		Use:   "set [flags] ID",
		Short: "Change what a VM may reach",
		Long: `Set replaces the policy of a VM's network, whether it runs or not, by what the flags say. Connections that the new
policy does not allow end. It stays over restarts.`,
		Example: `  smolvm net set web --net none
  smolvm net set web --allow pypi.org:443 --allow '*.pythonhosted.org:443'
  smolvm net set web --allow 'api.github.com=GET,HEAD:/repos/**'
  smolvm net set web --policy policy.yaml`,
	}, func(cmd *cobra.Command, id string) error {
		if !flags.Given(cmd) {
			return errdefs.Invalid.Errorf("net set: there is nothing to set").WithRemedy("%s --help", cmd.CommandPath())
		}
		p, err := flags.Policy(cmd)
		if err != nil {
			return err
		}
		vms, err := f.Open()
		if err != nil {
			return err
		}
		if err := vms.SetNetwork(cmd.Context(), id, p); err != nil {
			return err
		}
		_, err = fmt.Fprintln(f.Stdout, id)
		return err
	})
	flags.Add(cmd)
	return cmd
}

func (f Front) show() *cobra.Command {
	var out *format.Flags
	cmd := f.one(&cobra.Command{
		Use:     "show [flags] ID",
		Short:   "Show what a VM may reach, as --policy reads it",
		Example: "  smolvm net show web\n  smolvm net show web >policy.yaml && smolvm net set other --policy policy.yaml",
	}, func(cmd *cobra.Command, id string) error {
		vms, err := f.Open()
		if err != nil {
			return err
		}
		vm, err := vms.Inspect(cmd.Context(), id, false)
		switch {
		case err != nil:
			return err
		case vm.State == api.StateBroken:
			return errdefs.WrongState.Errorf("%s", vm.Reason)
		}
		return out.Print(f.Stdout, vm.Network, func() error {
			b, err := Format(vm.Network)
			if err != nil {
				return err
			}
			_, err = io.WriteString(f.Stdout, show.Escape(string(b)))
			return err
		})
	})
	out = format.Add(cmd, "print it as JSON", api.NetworkPolicy{})
	return cmd
}

func (f Front) log() *cobra.Command {
	var follow, archive bool
	var out *format.Flags
	cmd := f.one(&cobra.Command{
		Use:   "log [flags] ID",
		Short: "Show what a VM asked and reached, and what was refused",
		Long: `Log shows a line for each question of a name, for each connection, and for each request of HTTP in the connections that
rules have looked into, when it ended or was refused. The newest records are kept, about 16 MiB of them; what came too fast is
counted. --har writes the requests that are kept as an HTTP archive, which browsers show.`,
		Example: `  smolvm net log web
  smolvm net log -f --json web | jq -r 'select(.verdict == "deny") | .name'
  smolvm net log --har web >web.har`,
	}, func(cmd *cobra.Command, id string) error {
		if archive && (follow || !out.People()) {
			return errdefs.Invalid.Errorf("net log: --har excludes -f, --json and --format")
		}
		vms, err := f.Open()
		if err != nil {
			return err
		}
		if archive {
			return f.archive(cmd.Context(), vms, id)
		}
		return vms.NetworkLog(cmd.Context(), id, follow, func(r api.NetRecord) error {
			return out.Line(f.Stdout, r, func() error {
				_, err := fmt.Fprintln(f.Stdout, show.Cell(describe(r)))
				return err
			})
		})
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	cmd.Flags().BoolVar(&archive, "har", false, "print the requests as an HTTP archive (HAR 1.2)")
	out = format.Add(cmd, "print a JSON object per line", api.NetRecord{})
	return cmd
}

// archive prints the requests that are kept. A VM that is not there leaves no beginning of one.
func (f Front) archive(ctx context.Context, vms VMs, id string) error {
	h := har.New(f.Stdout, f.Version)
	if err := vms.NetworkLog(ctx, id, false, h.Add); err != nil {
		return err
	}
	return h.Close()
}

// describe tells a record to people.
func describe(r api.NetRecord) string {
	at := r.Time.UTC().Format("2006-01-02T15:04:05.000Z")
	if r.Kind == "dropped" {
		return fmt.Sprintf("%s %-5s %d records were dropped", at, "-", r.Count)
	}
	to := r.Name
	switch {
	case r.Kind == "http":
		to = request(r)
	case to == "":
		to = r.Addr
	case r.Addr != "":
		to += " (" + r.Addr + ")"
	}
	if r.Port != 0 && r.Kind != "http" {
		to += fmt.Sprintf(" port %d", r.Port)
	}
	if r.QType != "" {
		to += " " + r.QType
	}
	if r.Count > 1 {
		to = strings.TrimSpace(fmt.Sprintf("%s %d times", to, r.Count))
	}
	text := strings.TrimRight(fmt.Sprintf("%s %-5s %-4s %s", at, r.Verdict, r.Kind, to), " ")
	if r.BytesIn > 0 || r.BytesOut > 0 {
		text += fmt.Sprintf(", %s in, %s out", units.HumanSize(float64(r.BytesIn)), units.HumanSize(float64(r.BytesOut)))
	}
	if r.DurationMs > 0 {
		text += ", " + (time.Duration(r.DurationMs) * time.Millisecond).String()
	}
	if len(r.Secrets) > 0 {
		text += ", with " + strings.Join(r.Secrets, " ")
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	if r.Rule != "" {
		text += " [" + r.Rule + "]"
	}
	return text
}

// request tells what was asked for, as "GET a.example/x 200".
func request(r api.NetRecord) string {
	host := r.Name
	if r.Port != 0 && r.Port != 443 {
		host = fmt.Sprintf("%s:%d", host, r.Port)
	}
	text := r.Method + " " + host + r.Path
	if r.Status != 0 {
		text += fmt.Sprintf(" %d", r.Status)
	}
	return text
}

func (f Front) stats() *cobra.Command {
	var out *format.Flags
	cmd := f.one(&cobra.Command{
		Use:     "stats [flags] ID",
		Short:   "Add up what a VM asked and reached",
		Long:    "Stats adds up the records that net log shows, by name; addresses without a name stand for themselves.",
		Example: "  smolvm net stats web",
	}, func(cmd *cobra.Command, id string) error {
		vms, err := f.Open()
		if err != nil {
			return err
		}
		s, err := vms.NetworkStats(cmd.Context(), id)
		if err != nil {
			return err
		}
		s.Peers = show.List(s.Peers)
		return out.Print(f.Stdout, s, func() error { return printStats(f.Stdout, s) })
	})
	out = format.Add(cmd, "print it as JSON", api.NetStats{})
	return cmd
}

func printStats(w io.Writer, s api.NetStats) error {
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	_, err := fmt.Fprintf(w, "names asked: %d allowed, %d denied\nflows: %d allowed, %d denied\nrequests: %d allowed, %d denied\nother packets: %d denied\nbytes: %s in, %s out\nrecords: %d, and %d dropped\n",
		s.DNSAllowed, s.DNSDenied, s.FlowsAllowed, s.FlowsDenied, s.Requests-s.RequestsDenied, s.RequestsDenied, s.OtherDenied, size(s.BytesIn), size(s.BytesOut), s.Records, s.Dropped)
	if err != nil || len(s.Peers) == 0 {
		return err
	}
	t := show.Table(w, "NAME", "ALLOWED", "DENIED", "REQUESTS", "REFUSED", "IN", "OUT")
	for _, p := range s.Peers {
		show.Row(t, p.Name, fmt.Sprint(p.Allowed), fmt.Sprint(p.Denied), fmt.Sprint(p.Requests), fmt.Sprint(p.RequestsDenied), size(p.BytesIn), size(p.BytesOut))
	}
	if s.MorePeers > 0 {
		show.Row(t, fmt.Sprintf("%d more", s.MorePeers), "", "", "", "", "", "")
	}
	return t.Flush()
}
