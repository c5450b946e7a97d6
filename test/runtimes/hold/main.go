// SPDX-License-Identifier: Apache-2.0

// Command hold is a CNI plugin that changes nothing. Where a test has put a file /run/hold/PLACE, an ADD with that
// "place" renames it to PLACE.reached and waits until that is removed: a moment for the test to kill somebody.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

func main() {
	if err := run(os.Getenv("CNI_COMMAND")); err != nil {
		fmt.Printf(`{"cniVersion":"1.0.0","code":999,"msg":%q}`, err.Error())
		os.Exit(1)
	}
}

func run(command string) error {
	switch command {
	case "VERSION":
		fmt.Println(`{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}`)
		return nil
	case "ADD":
	default:
		return nil
	}
	var conf struct {
		CNIVersion string          `json:"cniVersion"`
		Place      string          `json:"place"`
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&conf); err != nil {
		return err
	}
	armed := "/run/hold/" + conf.Place
	err := os.Rename(armed, armed+".reached")
	for err == nil {
		time.Sleep(time.Millisecond)
		_, err = os.Stat(armed + ".reached")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if conf.PrevResult == nil {
		conf.PrevResult = fmt.Appendf(nil, `{"cniVersion":%q}`, conf.CNIVersion)
	}
	_, err = fmt.Println(string(conf.PrevResult))
	return err
}
