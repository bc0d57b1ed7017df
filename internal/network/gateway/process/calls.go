package process

import (
	"fmt"
	"os"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// restrict leaves all threads of this process, those to come too, the system calls that a gateway needs: those of Go's runtime,
// of sockets for IP, and of reading files. Others fail with EPERM and are logged by the kernel; what only somebody calls who
// has taken the process over ends it. It says how many are left.
func restrict() (int, error) {
	machine, err := arch.GetInfo("")
	if err != nil {
		return 0, err
	}
	allowed := calls(machine)
	left := len(allowed.Names)
	for i, c := range allowed.NamesWithCondtions {
		if i == 0 || c.Name != allowed.NamesWithCondtions[i-1].Name {
			left++
		}
	}
	err = seccomp.LoadFilter(seccomp.Filter{
		Flag: seccomp.FilterFlagTSync | seccomp.FilterFlagLog,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls: []seccomp.SyscallGroup{
				allowed,
				// Its flags lie in memory, where no filter sees them. Who asks for it goes on with clone.
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
				{Action: seccomp.ActionKillProcess, Names: hostile()},
			},
		},
	})
	if err != nil {
		return 0, err
	}
	// A thread that cannot have the filter is told in a way that the library does not look at; then nobody has it.
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	switch {
	case err != nil:
		return 0, fmt.Errorf("ask for the filter: %w", err)
	case mode != unix.SECCOMP_MODE_FILTER:
		return 0, fmt.Errorf("the filter is not in force: mode %d", mode)
	}
	return left, nil
}

// hostile are what no fault of ours calls.
func hostile() []string {
	return []string{
		"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root", "chroot", "unshare", "setns",
		"bpf", "init_module", "finit_module", "kexec_load", "open_by_handle_at", "userfaultfd", "io_uring_setup", "perf_event_open", "keyctl", "add_key",
	}
}

// calls are what is left. Those that move bytes come first.
func calls(machine *arch.Info) seccomp.SyscallGroup {
	stat := "newfstatat"
	if _, ok := machine.SyscallNames[stat]; !ok { // the library's tables differ
		stat = "fstatat"
	}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	const writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_APPEND
	type all = seccomp.ArgumentConditions
	on := func(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: all(conditions)}
	}
	is := func(argument uint32, value uint64) seccomp.Condition {
		return seccomp.Condition{Argument: argument, Operation: seccomp.Equal, Value: value}
	}
	without := func(argument uint32, bits uint64) seccomp.Condition {
		return seccomp.Condition{Argument: argument, Operation: seccomp.BitsNotSet, Value: bits}
	}
	with := func(argument uint32, bits uint64) seccomp.Condition {
		return seccomp.Condition{Argument: argument, Operation: seccomp.BitsSet, Value: bits}
	}
	return seccomp.SyscallGroup{
		Action: seccomp.ActionAllow,
		Names: []string{
			"read", "write", "readv", "writev", "futex", "epoll_pwait", "sendmsg", "recvmsg", "sendto", "recvfrom", "nanosleep",
			// The runtime's.
			"clock_gettime", "clock_nanosleep", "gettimeofday", "epoll_ctl", "epoll_create1", "eventfd2", "sched_yield", "sched_getaffinity", "madvise", "munmap",
			"mincore", "getpid", "gettid", "getppid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "set_robust_list", "rseq", "exit", "exit_group",
			"getrandom", "uname", "getrlimit", "getuid", "geteuid", "getgid", "getegid",
			// Sockets.
			"connect", "bind", "getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown", "close", "fcntl",
			// Files.
			"fstat", stat, "lseek", "pread64", "getdents64", "readlinkat",
		},
		NamesWithCondtions: []seccomp.NameWithConditions{
			on("mmap", without(2, unix.PROT_EXEC)),
			on("mprotect", without(2, unix.PROT_EXEC)),
			on("clone", with(0, unix.CLONE_THREAD), without(0, namespaces)),
			on("tgkill", is(0, uint64(os.Getpid()))), //nolint:gosec // it is positive
			on("prctl", is(0, unix.PR_GET_SECCOMP)),
			on("prctl", is(0, unix.PR_SET_VMA)),
			on("prlimit64", is(2, 0)), // only to ask
			on("socket", is(0, unix.AF_INET)),
			on("socket", is(0, unix.AF_INET6)),
			on("socket", is(0, unix.AF_NETLINK), is(2, unix.NETLINK_ROUTE)),
			on("openat", without(2, writing)),
		},
	}
}
