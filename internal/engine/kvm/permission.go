package kvm

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// denied says which permission of a device is missing, and by which command this user gets it.
func denied(device string) (why, remedy string) {
	info, err := os.Stat(device)
	if err != nil {
		return err.Error(), ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return device + ": permission denied", ""
	}
	name := "$USER"
	var listed []string // by the files, which count at the next login
	if u, err := user.Current(); err == nil {
		name = u.Username
		listed, _ = u.GroupIds()
	}
	group := strconv.Itoa(int(st.Gid))
	member := slices.Contains(listed, group)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return lack(device, info.Mode().Perm(), group, st.Gid, name, member)
}

// lack is denied in plain facts. member is who was put into the group since he logged in.
func lack(device string, mode fs.FileMode, group string, gid uint32, name string, member bool) (why, remedy string) {
	switch {
	case gid == 0 || mode&0o060 != 0o060:
		return fmt.Sprintf("%s is for root alone (%v, group %s)", device, mode, group), openToGroup(device) + fmt.Sprintf(" && sudo usermod -aG kvm %s, then log in again", name)
	case member:
		return fmt.Sprintf("%s is for the group %s, which %s joined after this session began", device, group, name), "log in again, or: newgrp " + group
	}
	return fmt.Sprintf("%s is for the group %s, and %s is not in it", device, group, name), fmt.Sprintf("sudo usermod -aG %s %s, then log in again", group, name)
}

// openToGroup is the command that lets the group of KVM's users have a device.
func openToGroup(device string) string {
	return fmt.Sprintf("sudo chgrp kvm %s && sudo chmod 0660 %s", device, device)
}
