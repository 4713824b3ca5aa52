// SPDX-License-Identifier: Apache-2.0

package privsep

import "github.com/keyhole-dev/keyhole/internal/target"

// twist falsifies a Target, in such a way that it agrees with itself where that can be.
func twist(t *target.Target, how string) {
	site := &t.Sites[0]
	switch how {
	case "identity":
		t.Identity.StartTicks++
	case "path":
		t.Identity.Path = "/usr/bin/harmless"
	case "bytes":
		site.Bytes[len(site.Bytes)-1] ^= 1
	case "offset":
		site.FileOffset++
	case "middle of an instruction":
		site.Address, site.FileOffset, site.RuntimeAddress, site.Bytes = site.Address+1, site.FileOffset+1, site.RuntimeAddress+1, site.Bytes[1:]
	case "function":
		t.Function.Name = "main.Close"
	case "place of a value":
		t.Values[0].Data.Register = 7
	case "name of a value":
		v := &t.Values[0]
		v.Names, v.Types = append(v.Names, "other"), append(v.Types, "int")
	case "one value less":
		t.Values = t.Values[1:]
	case "one value more":
		t.Values = append(t.Values, t.Values[0])
	}
}
