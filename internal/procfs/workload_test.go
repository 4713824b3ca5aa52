// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"os"
	"strings"
	"testing"
)

func TestWorkload(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for cgroup, want := range map[string]string{
		"0::/system.slice/shop.service\n":                                                  "unit/shop.service",
		"0::/system.slice/shop.service/workers\n":                                          "unit/shop.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app.service\n":         "unit/app.service",
		"0::/system.slice/docker-" + id + ".scope\n":                                       "container/" + id,
		"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope\n":         "container/" + id,
		"0::/kubepods/besteffort/pod1/" + id + "\n":                                        "container/" + id,
		"0::/system.slice/containerd.service/kubepods-x.slice:cri-containerd:" + id + "\n": "unit/containerd.service",
		"0::/../../pod1/" + id + "/init\n":                                                 "container/" + id,
		"12:memory:/jobs/a\n1:name=systemd:/system.slice/x.service\n":                      "unit/x.service",
		"12:cpu,memory:/jobs/a\n1:name=systemd:/\n":                                        "cgroup/jobs/a",
		"12:cpu:/a\n0::/\n": "cgroup/",
		"0::/\n":            "cgroup/",
		"":                  "",
		"nonsense":          "",
		"0::relative\n":     "",
	} {
		if got := Workload([]byte(cgroup)); got != want {
			t.Errorf("Workload(%q) = %q; want %q", cgroup, got, want)
		}
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if Workload(own) == "" {
		t.Errorf("nothing runs this test: %q", own)
	}
}

func FuzzWorkload(f *testing.F) {
	f.Add([]byte("0::/system.slice/shop.service\n"))
	f.Fuzz(func(t *testing.T, cgroup []byte) {
		kind, _, ok := strings.Cut(Workload(cgroup), "/")
		if kind != "" && (!ok || kind != "unit" && kind != "container" && kind != "cgroup") {
			t.Errorf("Workload(%q) is %q", cgroup, Workload(cgroup))
		}
	})
}
