"""Which streams a ROS 2 message becomes: one row of numbers a message, and what the columns mean."""

from __future__ import annotations

from dataclasses import dataclass

from robocache.records import Kind

_XYZ = ("x", "y", "z")
_XYZW = ("x", "y", "z", "w")
_NUMBERS = ("Float32", "Float64", *(f"{sign}{bits}" for sign in ("Int", "UInt") for bits in (8, 16, 32, 64)))


@dataclass(frozen=True)
class Part:
    """One stream of a message.

    Args:
        suffix: The stream is called topic + "." + suffix.
        paths: The fields that become its columns, in this order.
        columns: Names of the columns. Empty: a single path that is an array, with columns named by `names`.
        kind: What the columns mean.
        names: Path of a sequence of strings that names the columns of an array.
    """

    suffix: str
    paths: tuple[str, ...]
    columns: tuple[str, ...] = ()
    kind: Kind = "vector"
    names: str | None = None


def _vector(suffix: str, path: str) -> Part:
    return Part(suffix, tuple(f"{path}.{axis}".lstrip(".") for axis in _XYZ), _XYZ)


def _quaternion(suffix: str, path: str) -> Part:
    return Part(suffix, tuple(f"{path}.{axis}".lstrip(".") for axis in _XYZW), _XYZW, "quaternion_xyzw")


def _pose(path: str) -> tuple[Part, ...]:
    return _vector("position", f"{path}.position"), _quaternion("orientation", f"{path}.orientation")


def _twist(path: str) -> tuple[Part, ...]:
    return _vector("linear_velocity", f"{path}.linear"), _vector("angular_velocity", f"{path}.angular")


def _scalars(suffix: str, *paths: str) -> tuple[Part, ...]:
    return (Part(suffix, paths, paths),)


def _joint(name: str) -> Part:
    return Part(name, (name,), names="name")


RECIPES: dict[str, tuple[Part, ...]] = {
    "sensor_msgs/Imu": (
        _quaternion("orientation", "orientation"),
        _vector("angular_velocity", "angular_velocity"),
        _vector("linear_acceleration", "linear_acceleration"),
    ),
    "sensor_msgs/JointState": (_joint("position"), _joint("velocity"), _joint("effort")),
    "sensor_msgs/Joy": (Part("axes", ("axes",)), Part("buttons", ("buttons",))),
    "sensor_msgs/NavSatFix": _scalars("fix", "latitude", "longitude", "altitude"),
    "sensor_msgs/MagneticField": (_vector("magnetic_field", "magnetic_field"),),
    "sensor_msgs/FluidPressure": _scalars("fluid_pressure", "fluid_pressure"),
    "sensor_msgs/Temperature": _scalars("temperature", "temperature"),
    "sensor_msgs/RelativeHumidity": _scalars("relative_humidity", "relative_humidity"),
    "sensor_msgs/Illuminance": _scalars("illuminance", "illuminance"),
    "sensor_msgs/Range": _scalars("range", "range"),
    "sensor_msgs/LaserScan": (Part("ranges", ("ranges",)),),
    "nav_msgs/Odometry": (*_pose("pose.pose"), *_twist("twist.twist")),
    "geometry_msgs/Pose": (_vector("position", "position"), _quaternion("orientation", "orientation")),
    "geometry_msgs/PoseStamped": _pose("pose"),
    "geometry_msgs/PoseWithCovariance": _pose("pose"),
    "geometry_msgs/PoseWithCovarianceStamped": _pose("pose.pose"),
    "geometry_msgs/Pose2D": _scalars("pose", "x", "y", "theta"),
    "geometry_msgs/Twist": (_vector("linear_velocity", "linear"), _vector("angular_velocity", "angular")),
    "geometry_msgs/TwistWithCovariance": _twist("twist"),
    "geometry_msgs/TwistStamped": _twist("twist"),
    "geometry_msgs/TwistWithCovarianceStamped": _twist("twist.twist"),
    "geometry_msgs/Accel": (_vector("linear_acceleration", "linear"), _vector("angular_acceleration", "angular")),
    "geometry_msgs/AccelStamped": (
        _vector("linear_acceleration", "accel.linear"),
        _vector("angular_acceleration", "accel.angular"),
    ),
    "geometry_msgs/Wrench": (_vector("force", "force"), _vector("torque", "torque")),
    "geometry_msgs/WrenchStamped": (_vector("force", "wrench.force"), _vector("torque", "wrench.torque")),
    "geometry_msgs/Vector3": (_vector("vector", ""),),
    "geometry_msgs/Point": (_vector("point", ""),),
    "geometry_msgs/Quaternion": (_quaternion("quaternion", ""),),
    "geometry_msgs/Transform": (_vector("translation", "translation"), _quaternion("rotation", "rotation")),
    "geometry_msgs/Vector3Stamped": (_vector("vector", "vector"),),
    "geometry_msgs/PointStamped": (_vector("point", "point"),),
    "geometry_msgs/QuaternionStamped": (_quaternion("quaternion", "quaternion"),),
    "geometry_msgs/TransformStamped": (
        _vector("translation", "transform.translation"),
        _quaternion("rotation", "transform.rotation"),
    ),
    "std_msgs/Bool": _scalars("data", "data"),
    **{f"std_msgs/{number}": _scalars("data", "data") for number in _NUMBERS},
    # Not those of bytes, which mostly carry something encoded.
    **{f"std_msgs/{number}MultiArray": (Part("data", ("data",)),) for number in _NUMBERS if number[-3:] != "nt8"},
}
POINT_CLOUD = "sensor_msgs/PointCloud2"
CONSTANT = {"sensor_msgs/JointState": ("name",)}
STAMP = ("header.stamp.sec", "header.stamp.nanosec")
