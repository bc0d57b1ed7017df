package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/guest/link"
)

// Before a drive's id, in the names of QEMU's own.
const (
	nodePrefix   = "node-"
	rawPrefix    = "raw-"
	limitPrefix  = "limit-"
	devicePrefix = "blk-"
)

// driveFDs are the numbers of a drive's descriptors in the monitor; write is 0 where the drive is read-only.
type driveFDs struct {
	id          string
	read, write int
	limit       engine.IOLimit
	disposable  bool
}

// fds are the descriptors' numbers in the monitor.
type fds struct {
	kernel, initrd int // initrd and nic: 0 where there is none
	qmp, console   int
	agent          int
	nic            int
	drives         []driveFDs
}

// argv is the monitor's command line, without its name. It depends on nothing but what it is given.
func argv(s *engine.Spec, n fds, tscKHz uint64) []string {
	a := []string{
		"-name", "guest=" + escape(s.Name),
		// microvm: no PCI, no firmware to speak of, devices on virtio-mmio; ACPI, so that the guest finds them and can power off.
		"-M", "microvm,acpi=on",
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	}
	if s.Accel == kvm.Name {
		a = append(a, "-accel", "kvm", "-cpu", "host")
	} else {
		// A boot and a Python with its usual modules are some 100 MiB of translated code; where there is no room for it, all of it is
		// thrown away and made again, with 64 MiB in the middle of the first command. The kernel clears and copies pages by bytes
		// on a processor with ERMS, by words on others: QEMU 7.2 emulates either one item at a time.
		a = append(a, "-accel", "tcg,tb-size=128", "-cpu", "max,-erms")
	}
	a = append(
		a,
		"-smp", strconv.Itoa(s.CPUs),
		"-m", strconv.Itoa(s.MemoryMiB)+"M",
		"-kernel", fdPath(n.kernel),
	)
	if n.initrd != 0 {
		a = append(a, "-initrd", fdPath(n.initrd))
	}
	a = append(
		a,
		"-append", cmdline(s, tscKHz),
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", n.qmp),
		"-mon", "chardev=qmp,mode=control",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", n.console),
		"-serial", "chardev:console",
		"-device", "virtio-rng-device",
	)
	for i, d := range n.drives {
		a = append(a, drive(i+1, d)...)
	}
	if n.agent != 0 {
		a = append(
			a,
			"-chardev", fmt.Sprintf("socket,id=agent,fd=%d,server=on,wait=off", n.agent),
			"-device", "virtio-serial-device,max_ports=2",
			"-device", "virtserialport,chardev=agent,name="+link.PortName,
		)
	}
	if s.NIC != nil {
		a = append(a, "-netdev", netdev(s.NIC, n.nic), "-device", fmt.Sprintf("virtio-net-device,netdev=net0,mac=%s,host_mtu=%d", s.NIC.MAC, s.NIC.MTU))
	}
	return a
}

// netdev is where the card leads: to a socket of ours, whose other end decides what passes.
func netdev(n *engine.NIC, fd int) string {
	if n.Unfiltered {
		return "user,id=net0,ipv6=off,net=10.83.0.0/24,host=10.83.0.1,dns=10.83.0.3"
	}
	return fmt.Sprintf("dgram,id=net0,local.type=fd,local.str=%d", fd)
}

// drive is one disk. QEMU opens a file of a set with the access it wants, so that a writable drive has both kinds in its
// set. An error of the host's (a full disk) is the guest's I/O error and an event, never a silent pause.
func drive(set int, d driveFDs) []string {
	a := []string{"-add-fd", fmt.Sprintf("fd=%d,set=%d", d.read, set)}
	options := "read-only=on"
	if d.write != 0 {
		a = append(a, "-add-fd", fmt.Sprintf("fd=%d,set=%d", d.write, set))
		options = "discard=unmap"
	}
	if d.disposable {
		options += ",cache.no-flush=on"
	}
	node := nodePrefix + d.id
	raw := node
	if d.limit != (engine.IOLimit{}) {
		raw = rawPrefix + d.id
	}
	a = append(a, "-blockdev", fmt.Sprintf("driver=raw,node-name=%s,%s,file.driver=file,file.filename=/dev/fdset/%d", raw, options, set))
	if raw != node { // a filter above the file has the name that the device uses
		group := limitPrefix + d.id
		a = append(
			a,
			"-object", fmt.Sprintf("throttle-group,id=%s,x-bps-total=%d,x-iops-total=%d", group, d.limit.BytesPerSecond, d.limit.OpsPerSecond),
			"-blockdev", fmt.Sprintf("driver=throttle,node-name=%s,throttle-group=%s,file=%s", node, group, raw),
		)
	}
	return append(
		a,
		"-device", fmt.Sprintf("virtio-blk-device,id=%s,drive=%s,serial=%s,werror=report,rerror=report", devicePrefix+d.id, node, d.id),
	)
}

// cmdline is the kernel's command line: first what this machine needs, then what the caller wants.
func cmdline(s *engine.Spec, tscKHz uint64) string {
	parts := []string{"console=ttyS0", "reboot=t", "panic=-1"}
	if s.Accel != kvm.Name {
		parts = append(parts, "tsc=reliable")
		if tscKHz != 0 {
			parts = append(parts, "tsc_early_khz="+strconv.FormatUint(tscKHz, 10))
		}
	}
	if s.Cmdline != "" {
		parts = append(parts, s.Cmdline)
	}
	return strings.Join(parts, " ")
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// escape doubles the commas of a value, as QEMU's option syntax wants it.
func escape(v string) string { return strings.ReplaceAll(v, ",", ",,") }
