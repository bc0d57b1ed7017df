package images

import (
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/bootflags"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/value"
)

func (e Env) sshKey() *cobra.Command {
	var r api.SSHImageRequest
	var disk value.Size
	cmd := &cobra.Command{
		Use:   "ssh-key [flags] FILE",
		Short: "Lay out the default image and the kernel as files, for logins with a key",
		Long: `Ssh-key prints two paths, for --kernel and --rootfs: our kernel, and the default image as a file of its own with the public key
of FILE beside it, which may log in to VMs that are made of it. It takes no room: the file is the image's under another name.`,
		Example:           "  smolvm image ssh-key ~/.ssh/id_ed25519.pub",
		Args:              e.Args(1, 1),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
	}
	f := cmd.Flags()
	f.StringVar(&r.Name, "name", "", "begin the name of its directory with this `NAME` (default debian-ssh-key)")
	f.Var(&disk, "disk", "size of the writable disks of VMs that are made of it (default 8g)")
	out := format.Add(cmd, "print them as JSON", api.SSHImage{})
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		keys, err := bootflags.ReadKeys(files[0])
		if err != nil {
			return err
		}
		if len(keys) != 1 {
			return errdefs.Invalid.Errorf("ssh key: there are %d in %s, and one is meant", len(keys), files[0])
		}
		r.SSHPublicKey, r.RootfsSizeMiB = keys[0], int(disk)
		store, err := e.Images()
		if err != nil {
			return err
		}
		p := e.Progress()
		defer p.Stop()
		img, err := store.BuildSSH(cmd.Context(), r, p.Report)
		if err != nil {
			return err
		}
		p.Stop()
		return out.Print(e.Stdout, img, func() error { return e.println("%s\n%s", img.KernelPath, img.RootfsPath) })
	}
	return cmd
}
