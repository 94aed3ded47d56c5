use super::*;

#[test]
fn a_closed_tun_is_no_lack_of_capabilities() {
    let told = |error| {
        let error = closed_tun("a1".parse().unwrap(), error).unwrap();
        format!("{error}; {}", error.remedy())
    };
    for (error, word) in
        [(Errno::ACCESS, "mode 0666"), (Errno::PERM, "DeviceAllow"), (Errno::NOENT, "modprobe tun")]
    {
        let told = told(error);
        assert!(told.contains(word) && !told.contains("CAP_"), "{told}");
    }
    assert!(closed_tun("a1".parse().unwrap(), Errno::MFILE).is_none());
}
