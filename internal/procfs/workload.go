// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"path"
	"regexp"
	"strings"
)

// container is a component of a control group's path as containerd, CRI-O, Docker and Podman name theirs, with systemd's drivers or without.
var container = regexp.MustCompile(`^(?:(?:docker|cri-containerd|crio|libpod)-)?([0-9a-f]{64})(?:\.scope)?$`)

// Workload is what runs a process, by the text of its /proc/PID/cgroup: container/ID, unit/NAME.service, or else the control group itself,
// cgroup/PATH. It is empty where the text names no group. Of version 1's hierarchies, the one that systemd keeps, or memory's, is looked at.
func Workload(cgroup []byte) string {
	groups := make(map[string]string)
	for line := range strings.Lines(string(cgroup)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			continue
		}
		if fields[0] == "0" {
			groups[""] = fields[2]
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			groups[controller] = fields[2]
		}
	}
	for _, hierarchy := range []string{"", "name=systemd", "memory"} {
		if group := groups[hierarchy]; group != "" && group != "/" {
			return workload(path.Clean(group))
		}
	}
	for _, group := range groups {
		if group == "/" {
			return "cgroup/"
		}
	}
	return ""
}

func workload(group string) string {
	unit := ""
	for component := range strings.SplitSeq(group, "/") {
		if id := container.FindStringSubmatch(component); id != nil {
			return "container/" + id[1]
		}
		if strings.HasSuffix(component, ".service") {
			unit = component
		}
	}
	if unit != "" {
		return "unit/" + unit
	}
	return "cgroup" + group
}
