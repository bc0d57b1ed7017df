// Package port is what the command line knows of a VM's published ports: the flag that says which, and the commands that
// show and change them, and wait for a service.
//
// Layer: part of the front cli. It may import internal/cli/{show,value}, api, errdefs.
package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/value"
)

// VMs is what the commands need of lifecycle.Manager.
type VMs interface {
	List(ctx context.Context, all bool) ([]api.Sandbox, error)
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	Publisher
}

// Publisher changes what is published.
type Publisher interface {
	PublishPort(ctx context.Context, id string, p api.Port) (api.Port, error)
	UnpublishPort(ctx context.Context, id string, which api.Port) (api.Port, error)
}

// Guest is the way into a running VM.
type Guest interface {
	WaitPort(ctx context.Context, port int) error
	io.Closer
}

// Front is what the commands need of the program.
type Front struct {
	Open    func() (VMs, error)
	Connect func(ctx context.Context, id string) (Guest, error)
	// SSH makes a guest ready for logins over its port 22.
	SSH    func(ctx context.Context, id string) error
	Args   func(low, high int) cobra.PositionalArgs
	Group  cobra.PositionalArgs // of a command that only has others below it
	IDs    func(all bool, limit int) cobra.CompletionFunc
	Stdout io.Writer
	Stderr io.Writer
}

// Command is `port` with all below it.
func Command(f Front) *cobra.Command {
	cmd := &cobra.Command{
		Use: "port", Short: "Publish TCP ports of a VM on this host, and wait for them",
		Example: "  smolvm port add web 8080:80\n  smolvm port ls", GroupID: "vm",
		Args: f.Group, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(f.add(), f.rm(), f.ls(), f.wait())
	return cmd
}

// change makes a command that changes a port of a VM, and prints the port.
func (f Front) change(cmd *cobra.Command, do func(ctx context.Context, vms VMs, id string, p api.Port) (api.Port, error)) *cobra.Command {
	cmd.Args = f.Args(2, 2)
	out := format.Add(cmd, "print it as JSON", api.Port{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := args[0]
		if err := api.ValidateID(id); err != nil {
			return err
		}
		p, err := api.ParsePort(args[1])
		if err != nil {
			return err
		}
		vms, err := f.Open()
		if err != nil {
			return err
		}
		if p, err = do(cmd.Context(), vms, id, p); err != nil {
			return err
		}
		return out.Print(f.Stdout, p, func() error {
			_, err := fmt.Fprintln(f.Stdout, p.Host())
			return err
		})
	}
	return cmd
}

func (f Front) add() *cobra.Command {
	cmd := f.change(&cobra.Command{
		Use:   "add [flags] ID [[ADDRESS:]HOST:]GUEST",
		Short: "Publish a port of a VM",
		Long: `Add makes the port GUEST of a VM the port HOST of this host, and prints its address. It may be added before anything
listens in the VM, and stays over restarts. Without HOST, or with 0, it is any free port. Without ADDRESS it is 127.0.0.1,
which only programs on this host reach. A port that is taken is an error.`,
		Example: "  smolvm port add web 8080:80\n  smolvm port add web 5432\n  smolvm port add web 0.0.0.0:8080:80\n  smolvm port add web '[::1]:8080:80'",
	}, func(ctx context.Context, vms VMs, id string, p api.Port) (api.Port, error) {
		p, err := vms.PublishPort(ctx, id, p)
		if err != nil {
			return p, err
		}
		vm, err := vms.Inspect(ctx, id, false)
		switch {
		case err != nil:
			return p, err
		case vm.State == api.StateRunning:
			f.Login(ctx, id, []api.Port{p})
		case p.HostPort == 0:
			_, _ = fmt.Fprintf(f.Stderr, "smolvm: %s is %s; the port gets its number when it starts\n", id, vm.State)
		}
		return p, nil
	})
	cmd.ValidArgsFunction = f.IDs(true, 1)
	return cmd
}

// Login makes a guest ready for logins when its sshd's port is among ports. Without them the port is published all the same.
func (f Front) Login(ctx context.Context, id string, ports []api.Port) {
	for _, p := range ports {
		if p.GuestPort != api.GuestSSH {
			continue
		}
		if err := f.SSH(ctx, id); err != nil && ctx.Err() == nil {
			_, _ = fmt.Fprintf(f.Stderr, "smolvm: port %d of %s is published, but nobody can log in: %s\n", api.GuestSSH, id, show.Cell(err.Error()))
			if remedy := errdefs.RemedyOf(err); remedy != "" {
				_, _ = fmt.Fprintf(f.Stderr, "  try: %s\n", show.Cell(remedy))
			}
		}
		return
	}
}

// Announce tells on standard error which numbers the ports got that may be any.
func (f Front) Announce(id string, ports []api.Port) {
	for _, p := range ports {
		if p.Any {
			_, _ = fmt.Fprintf(f.Stderr, "smolvm: %s is port %d of %s\n", p.Host(), p.GuestPort, id)
		}
	}
}

func (f Front) rm() *cobra.Command {
	cmd := f.change(&cobra.Command{
		Use:   "rm [flags] ID [[ADDRESS:]HOST:]GUEST",
		Short: "Publish a port of a VM no more",
		Long: `Rm ends what add or -p began, and the connections there. GUEST alone is enough where it is published once. It prints the
address that is free now.`,
		Example: "  smolvm port rm web 8080:80\n  smolvm port rm web 80",
	}, func(ctx context.Context, vms VMs, id string, p api.Port) (api.Port, error) {
		gone, err := vms.UnpublishPort(ctx, id, p)
		if errdefs.Is(err, errdefs.NotFound) && errdefs.RemedyOf(err) == "" {
			err = errdefs.NotFound.Errorf("%w", err).WithRemedy("smolvm port ls %s", id)
		}
		return gone, err
	})
	cmd.ValidArgsFunction = f.complete
	return cmd
}

// complete completes a VM, and then its ports.
func (f Front) complete(cmd *cobra.Command, have []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(have) == 0 {
		return f.IDs(true, 1)(cmd, have, text)
	}
	if len(have) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	vms, err := f.Open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	vm, err := vms.Inspect(cmd.Context(), have[0], false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	for _, p := range vm.Ports {
		names = append(names, cobra.CompletionWithDesc(p.String(), "port "+strconv.Itoa(p.GuestPort)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// listed is what --json prints of a port.
type listed struct {
	VM string `json:"vm"`
	api.Port
	Open bool `json:"open"` // it is listened on
}

func (f Front) ls() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [flags] [ID...]",
		Short: "List the ports that VMs publish",
		Long: `Ls lists the published ports of VMs, of all without an ID. What a VM publishes is listened on while it runs or is paused; one that
may be any has its number from the first start on.`,
		Example: "  smolvm port ls\n  smolvm port ls web --json | jq '.[].host_port'",
		Args:    f.Args(0, -1), ValidArgsFunction: f.IDs(true, -1),
	}
	out := format.Add(cmd, "print them as JSON", listed{})
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		vms, err := f.which(cmd.Context(), ids)
		if err != nil {
			return err
		}
		var all []listed
		t := show.Table(f.Stdout, "VM", "ADDRESS", "PORT", "STATE")
		for _, vm := range vms {
			open, state := false, "closed"
			if vm.State.Live() && vm.State != api.StateStarting {
				open, state = true, "open"
			}
			for _, p := range vm.Ports {
				all = append(all, listed{vm.ID, p, open})
				at := p.Host()
				if p.HostPort == 0 {
					at = p.Address + ":any"
				}
				show.Row(t, vm.ID, at, strconv.Itoa(p.GuestPort), state)
			}
		}
		return out.Print(f.Stdout, all, t.Flush)
	}
	return cmd
}

// which are the VMs that were named, or all.
func (f Front) which(ctx context.Context, ids []string) ([]api.Sandbox, error) {
	for _, id := range ids {
		if err := api.ValidateID(id); err != nil {
			return nil, err
		}
	}
	vms, err := f.Open()
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return vms.List(ctx, true)
	}
	var all []api.Sandbox
	for _, id := range ids {
		vm, err := vms.Inspect(ctx, id, false)
		if err != nil {
			return nil, err
		}
		all = append(all, vm)
	}
	return all, nil
}

func (f Front) wait() *cobra.Command {
	timeout := value.Duration(time.Minute)
	cmd := &cobra.Command{
		Use:   "wait [flags] ID GUEST",
		Short: "Wait until something listens on a port of a VM",
		Long: `Wait returns when a program in the VM listens on a TCP port there, published or not. It makes no connection to it. After
--timeout it fails.`,
		Example: "  smolvm port wait web 80 && curl http://127.0.0.1:8080/",
		Args:    f.Args(2, 2), ValidArgsFunction: f.IDs(false, 1),
	}
	cmd.Flags().Var(&timeout, "timeout", "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := args[0]
		if err := api.ValidateID(id); err != nil {
			return err
		}
		n, err := strconv.ParseUint(args[1], 10, 16)
		if err != nil || n == 0 {
			return errdefs.Invalid.Errorf("port wait: %q is no port: it is a number from 1 to 65535", args[1]).WithRemedy("%s --help", cmd.CommandPath())
		}
		late := errdefs.Timeout.Errorf("nothing listens on port %d of %s within %s", n, id, time.Duration(timeout)).WithRemedy("smolvm exec %s -- ss -ltnp", id)
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), time.Duration(timeout), late)
		defer cancel()
		g, err := f.Connect(ctx, id)
		if err != nil {
			return err
		}
		defer func() { _ = g.Close() }()
		if err = g.WaitPort(ctx, int(n)); err != nil && errors.Is(context.Cause(ctx), late) {
			err = late
		}
		return err
	}
	return cmd
}
