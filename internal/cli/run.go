package cli

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/secret"
	"github.com/smolvm/smolvm/internal/cli/session"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/terminal"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// cleanupTime bounds what is done after the end.
const cleanupTime = 30 * time.Second

// runOptions are what run is told.
type runOptions struct {
	cfg    api.Config
	values api.SecretValues
	req    api.ExecRequest
	detach bool
	keep   bool
	keys   terminal.Keys
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	var c session.Flags
	cmd := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARG...]",
		Short: "Run a command in a fresh VM, and remove the VM",
		Long: `Run makes a VM, runs the command in it with our standard output and error, and removes the VM when the command
ends, however it ends. Flags end at the command's name; -- may stand before it.

The exit code is the command's own, or 124 after --timeout, 125 when SmolVM failed, 126 when the command cannot be
executed, 127 when there is none. The first Ctrl-C goes to the command, the second ends it. With -it the command has our
terminal and all its keys; the detach keys leave it, and the VM stays.`,
		Example: `  smolvm run -- python3 -c 'print(6*7)'
  smolvm run -i --memory 2g --timeout 5m -- python3 - <job.py
  smolvm run -it -- bash
  smolvm run -e API_KEY -c 'pip list | wc -l'
  smolvm run -d --name web -p 8080:8000 -- python3 -m http.server
  smolvm run --json -- uname -a`,
		GroupID:     "run",
		Annotations: map[string]string{guestCommand: "1"},
	}
	v := a.vmFlags(cmd)
	c.Add(cmd)
	f := cmd.Flags()
	f.BoolVarP(&c.Detach, "detach", "d", false, "print the VM's id once the command runs, and leave it running")
	f.BoolVar(&o.keep, "keep", false, "stop the VM at the end instead of removing it")
	f.BoolVar(&a.json, "json", false, "print the outcome and the output as JSON")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		if c.Detach && o.keep {
			return errdefs.Invalid.Errorf("run: -d does not go with --keep: the VM stays anyway")
		}
		o.detach, o.keys = c.Detach, c.Keys
		var err error
		if o.cfg, err = v.config(cmd); err != nil {
			return err
		}
		if o.req, err = a.session("", a.json, nil).Request(cmd, &c, argv); err != nil {
			return err
		}
		s, err := a.open(true)
		if err != nil {
			return err
		}
		if o.values, err = secret.Resolve(cmd.Context(), cmd, o.cfg.ID, o.cfg.Secrets); err != nil {
			return err
		}
		return a.run(cmd.Context(), s.VMs, o)
	}
	return cmd
}

// run makes the VM, and sees to it that what shall not stay goes.
func (a *app) run(ctx context.Context, vms VMs, o runOptions) (err error) {
	p := a.progress()
	defer p.Stop()
	owner := api.OwnerClient
	if o.keep {
		owner = api.OwnerKeep
	}
	vm, err := vms.Create(ctx, o.cfg, lifecycle.CreateOptions{Owner: owner, Client: os.Getpid(), Progress: p.Report, Start: true, Secrets: o.values})
	if err != nil {
		return err
	}
	stays := false
	defer func() {
		if stays {
			return
		}
		p.Stop()
		// A command's own failure says more than one of the clean-up, but a success does not stand with one.
		if cerr := a.endRun(ctx, vms, vm.ID, o.keep); cerr != nil && err == nil {
			err = cerr
		} else if cerr != nil {
			show.Report(a.Stderr, cerr)
		}
	}()
	begun, err := vms.StartWith(ctx, vm.ID, o.values, p.Report)
	if err != nil {
		return err
	}
	p.Stop()
	a.started(ctx, begun)
	g, err := vms.Connect(ctx, vm.ID)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	if !o.detach {
		err := a.guestExec(ctx, g, vm.ID, o.req, o.keys)
		if left, ok := errors.AsType[session.Detached](err); ok {
			if err := vms.SetOwner(ctx, vm.ID, api.OwnerKeep); err != nil {
				return err
			}
			stays = true
			return a.session(vm.ID, false, nil).Left(left)
		}
		return err
	}
	if err := a.detach(ctx, vms, g, vm.ID, o.req); err != nil {
		return err
	}
	stays = true
	if a.json {
		return a.printVM(ctx, vms, vm.ID)
	}
	return a.println("%s", vm.ID)
}

// detach starts the command and lets go of the VM.
func (a *app) detach(ctx context.Context, vms VMs, g Guest, id string, req api.ExecRequest) error {
	req.OnDisconnect, req.Main = api.DisconnectKeep, true
	if _, err := g.StartDetached(ctx, req); err != nil {
		return err
	}
	return vms.SetOwner(ctx, id, api.OwnerKeep)
}

// endRun removes the VM, or stops the one to keep, also when ctx has ended.
func (a *app) endRun(ctx context.Context, vms VMs, id string, keep bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if !keep {
		return vms.Remove(ctx, id, true)
	}
	if err := vms.Stop(ctx, id, lifecycle.StopOptions{}); err != nil {
		return err
	}
	if !a.json {
		a.say("kept %s, stopped; smolvm start %s", id, id)
	}
	return nil
}
