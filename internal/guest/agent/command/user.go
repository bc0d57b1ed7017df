package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// user is who runs a command.
type user struct {
	name, home, shell string
	uid, gid          uint32
	groups            []uint32
}

// accounts are the files that say who there is. os/user is not used: it knows no shell.
type accounts struct{ passwd, group string }

func systemAccounts() accounts { return accounts{"/etc/passwd", "/etc/group"} }

// maxAccountFile bounds what is read of such a file: the user may write anything there.
const maxAccountFile = 4 << 20

// lookup resolves a name, "uid" or "uid:gid"; "" is root.
func (a accounts) lookup(spec string) (user, error) {
	if spec == "" {
		spec = "0"
	}
	id, group, hasGroup := strings.Cut(spec, ":")
	uid, numeric := parseID(id)
	u, found, err := a.find(id, uid, numeric)
	switch {
	case err != nil:
		return user{}, err
	case !found && !numeric:
		return user{}, fmt.Errorf("user %q: not in %s", id, a.passwd)
	case !found:
		u = user{name: id, uid: uid, gid: uid, home: "/", shell: "/bin/sh"}
		if uid == 0 {
			u.name, u.home = "root", "/root"
		}
	}
	if hasGroup {
		gid, ok := parseID(group)
		if !ok {
			return user{}, fmt.Errorf("group %q is not a number", group)
		}
		u.gid, u.groups = gid, []uint32{gid}
		return u, nil
	}
	u.groups, err = a.groups(u)
	return u, err
}

func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

func (a accounts) find(name string, uid uint32, numeric bool) (u user, found bool, err error) {
	err = eachLine(a.passwd, func(f []string) bool {
		if len(f) < 7 {
			return true
		}
		id, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 || (f[0] != name && (!numeric || id != uid)) {
			return true
		}
		u = user{name: f[0], uid: id, gid: gid, home: f[5], shell: f[6]}
		if u.home == "" {
			u.home = "/"
		}
		if u.shell == "" {
			u.shell = "/bin/sh"
		}
		found = true
		return false
	})
	return u, found, err
}

// groups returns u's groups, its own first.
func (a accounts) groups(u user) ([]uint32, error) {
	const most = 1 << 10
	gids := []uint32{u.gid}
	err := eachLine(a.group, func(f []string) bool {
		if len(f) < 4 {
			return true
		}
		gid, ok := parseID(f[2])
		if ok && slices.Contains(strings.Split(f[3], ","), u.name) && !slices.Contains(gids, gid) {
			gids = append(gids, gid)
		}
		return len(gids) < most
	})
	return gids, err
}

// eachLine calls f with the fields of each line until it returns false. A missing file has no lines.
func eachLine(path string, f func([]string) bool) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	s := bufio.NewScanner(io.LimitReader(file, maxAccountFile))
	for s.Scan() {
		if line := s.Text(); line != "" && line[0] != '#' && !f(strings.Split(line, ":")) {
			break
		}
	}
	return s.Err()
}
