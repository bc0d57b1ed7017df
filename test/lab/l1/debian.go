package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// debian makes our Debian the root of everything. It is moved over the first one and not only entered: the kernel lets nobody
// in a mere chroot make user namespaces, which the confinement of monitors is made of.
func debian(drives map[string]string) error {
	lower, upper, root := "/debian/image", "/debian/changes", "/debian/root"
	if err := attach(drives["root"], lower); err != nil {
		return fmt.Errorf("mount the image: %w", err)
	}
	if layer := drives["layer"]; layer != "" {
		if err := attach(layer, "/debian/layer"); err != nil {
			return fmt.Errorf("mount what the image lacks: %w", err)
		}
		lower = "/debian/layer:" + lower
	}
	if err := mount("tmpfs", upper); err != nil {
		return err
	}
	for _, d := range []string{upper + "/upper", upper + "/scratch", root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+"/upper,workdir="+upper+"/scratch"); err != nil {
		return fmt.Errorf("mount our Debian: %w", err)
	}
	if err := furnish(root); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move to our Debian: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return loopback()
}

// furnish gives a root what the machine has, and the files that an image gets at boot.
func furnish(root string) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	release, _, _ := bytes.Cut(name.Release[:], []byte{0})
	for from, to := range map[string]string{
		"/dev": "/dev", "/proc": "/proc", "/sys": "/sys", "/tmp": "/tmp", "/run": "/run", workDir: workDir,
		modulesDir: filepath.Join("/usr/lib/modules", string(release)),
	} {
		to = filepath.Join(root, to)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", from, err)
		}
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"/etc/hostname": "lab\n",
		"/etc/hosts":    "127.0.0.1\tlocalhost lab\n::1\tlocalhost\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil { //nolint:gosec // for all to read
			return err
		}
	}
	for path, line := range map[string]string{ //nolint:gosec // no credentials
		"/etc/passwd": "dev:x:1000:1000::/work:/bin/bash\n", "/etc/group": "dev:x:1000:\n",
	} {
		if err := add(filepath.Join(root, path), line); err != nil {
			return err
		}
	}
	return nil
}

// add writes a line to a file's end.
func add(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// loopback brings the network card of that name up.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	card, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	card.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, card)
}
