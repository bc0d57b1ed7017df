package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/bootflags"
	"github.com/smolvm/smolvm/internal/cli/config"
	"github.com/smolvm/smolvm/internal/cli/engines"
	"github.com/smolvm/smolvm/internal/cli/network"
	"github.com/smolvm/smolvm/internal/cli/port"
	"github.com/smolvm/smolvm/internal/cli/secret"
	"github.com/smolvm/smolvm/internal/cli/value"
)

// vmFlags are the flags that describe a VM.
type vmFlags struct {
	cfg         api.Config
	memory      value.Size
	disk        value.Size
	diskRate    value.Size
	console     value.Size
	log         value.Size
	output      value.Size
	bootTimeout value.Duration
	ttl         value.Duration
	idle        value.Idle
	env         value.Env
	net         network.Flags
	file        func() (config.File, error) // of defaults
	ports       port.Flag
	boot        bootflags.Flags
	secrets     secret.Flag
}

func (a *app) vmFlags(cmd *cobra.Command) *vmFlags {
	v := &vmFlags{file: a.config}
	f := cmd.Flags()
	f.StringVar(&v.cfg.ID, "name", "", "the VM's `ID` (default: one is made up)")
	f.StringVar(&v.cfg.Image, "image", "", "the `IMAGE` that it boots (default "+api.DefaultImage+")")
	f.IntVar(&v.cfg.CPUs, "cpus", 0, fmt.Sprintf("`N` processors (default %d)", api.DefaultCPUs))
	f.Var(&v.memory, "memory", fmt.Sprintf("memory: 512m, 2g, or MiB (default %dm)", api.DefaultMemoryMiB))
	f.Var(&v.disk, "disk", fmt.Sprintf("size of the writable disk (default %dg)", api.DefaultDiskMiB/1024))
	f.Var(&v.diskRate, "disk-rate", "what the disk reads and writes per second at most: 20m, or MiB")
	f.IntVar(&v.cfg.DiskIOPS, "disk-iops", 0, fmt.Sprintf("`N` requests per second to the disk at most, %d or more", api.MinDiskIOPS))
	f.IntVar(&v.cfg.CPUShare, "cpu-share", 0, "use at most `PERCENT` of one of the host's processors: 50 is half of one")
	f.IntVar(&v.cfg.MaxProcesses, "max-processes", 0, "`N` processes of all commands together at most (default: what the memory has room for)")
	f.Var(&v.console, "console-size", fmt.Sprintf("keep so much of the kernel's console (default %dm)", api.DefaultConsoleMiB))
	f.Var(&v.log, "log-size", fmt.Sprintf("keep so much of what the command of run -d prints (default %dm)", api.DefaultLogMiB))
	f.Var(&v.output, "output-size", fmt.Sprintf("keep so much of each command's output for attach (default %dm)", api.DefaultOutputMiB))
	v.env.Flags(f)
	f.StringVarP(&v.cfg.Workdir, "workdir", "w", "", "`DIR` where commands run (default: the user's home)")
	f.StringVarP(&v.cfg.User, "user", "u", "", "`USER` who runs commands: name or uid[:gid] (default root)")
	engines.Flag(cmd, &v.cfg.Engine)
	f.BoolVar(&v.cfg.RequireAccel, "require-accel", false, "refuse emulation, which is no security boundary")
	f.BoolVar(&v.cfg.RequireConfinement, "require-confinement", false, "refuse a host on which a wall around the VM's processes is missing")
	f.BoolVar(&v.cfg.NoHostCAs, "no-host-cas", false, "do not trust the certificate authorities that this host's administrator added")
	f.Var(&v.bootTimeout, "boot-timeout", "how long a start may take (default 60s, emulated 300s)")
	v.net.Add(cmd)
	v.ports.Add(cmd)
	v.boot.Add(cmd)
	v.secrets.Add(cmd)
	f.Var(&v.ttl, "ttl", "stop the VM when it has run for so long")
	f.Var(&v.idle, "idle", "stop the VM when nobody asked anything of it for so long; 10m=pause or 10m=rm do that instead")
	_ = cmd.RegisterFlagCompletionFunc("image", a.completeImages)
	return v
}

// config checks the flags before anything is made.
func (v *vmFlags) config(cmd *cobra.Command) (api.Config, error) {
	image := cmd.Flags().Changed("image")
	file, err := v.file()
	if err == nil {
		err = file.SetFlags(cmd)
	}
	if err != nil {
		return v.cfg, err
	}
	c := v.cfg
	c.Engine = engines.Wanted(c.Engine)
	c.MemoryMiB, c.DiskMiB, c.BootTimeoutMs = int(v.memory), int(v.disk), v.bootTimeout.Milliseconds()
	c.DiskRateMiB, c.ConsoleMiB, c.LogMiB, c.OutputMiB = int(v.diskRate), int(v.console), int(v.log), int(v.output)
	c.TTLMs, c.IdleMs, c.IdleAction = v.ttl.Milliseconds(), v.idle.Milliseconds(), v.idle.Action
	v.env.Base = file.Env()
	if c.Env, err = v.env.Resolve(os.LookupEnv); err != nil {
		return c, err
	}
	if err := v.boot.Apply(&c); err != nil {
		return c, err
	}
	if c.Secrets, err = v.secrets.Secrets(); err != nil {
		return c, err
	}
	if c.RootfsPath != "" && !image {
		c.Image = "" // the file's default
	}
	c.Ports = v.ports
	if c.Network, err = v.net.Policy(cmd); err != nil {
		return c, err
	}
	check := c.WithDefaults()
	if cmd.Flags().Changed("cpus") {
		check.CPUs = c.CPUs
	}
	if c.ID == "" && !cmd.Flags().Changed("name") {
		check.ID = "made-up"
	}
	return c, check.Validate()
}
