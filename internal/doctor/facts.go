// SPDX-License-Identifier: Apache-2.0

package doctor

// A Report is what a node says of itself.
type Report struct {
	Facts    Facts    `json:"facts"`
	SelfTest SelfTest `json:"selfTest"`
}

// Facts are what the kernel says of itself and of this machine. What could not be read is the zero value, or Unknown.
type Facts struct {
	Kernel string `json:"kernel"` // its release: 6.12.0-amd64
	Arch   string `json:"arch"`   // GOARCH
	BTF    bool   `json:"btf"`    // the kernel describes its types
	// Lockdown is none, integrity or confidentiality; empty where the kernel has no such thing.
	Lockdown string `json:"lockdown"`
	// Capabilities are those that are there of the four that a monitor needs.
	Capabilities []string `json:"capabilities"`
	// PerfEventParanoid and UnprivilegedBPFDisabled are the sysctls of these names.
	PerfEventParanoid       int `json:"perfEventParanoid"`
	UnprivilegedBPFDisabled int `json:"unprivilegedBpfDisabled"`
	// Where these are mounted; empty: nowhere that this process can see.
	Tracefs string `json:"tracefs"`
	BPFFS   string `json:"bpffs"`
	Cgroup2 string `json:"cgroup2"`
	Cgroup1 bool   `json:"cgroup1"` // a memory controller of version 1
	// UprobeMulti says that the kernel has uprobe_multi links, PerfEvents that the node lets perf events take their place.
	UprobeMulti bool `json:"uprobeMulti"`
	PerfEvents  bool `json:"perfEvents"`
	Kprobes     bool `json:"kprobes"` // the kernel lets programs be put on its own functions
	Seccomp     bool `json:"seccomp"`
	Landlock    int  `json:"landlock"` // the version by which the kernel bounds the files of a process; 0: none
}

// Unknown is a number that could not be read.
const Unknown = -100
